// Package watch tells of changes to files, globs and trees, over one inotify instance for
// all of them.
//
// Directories are watched, never files: an editor that saves by renaming over the old file
// would take a file's own watch away. A path that does not exist yet is waited for at its
// nearest existing ancestor. When the kernel's queue overflows, everything counts as changed.
package watch
