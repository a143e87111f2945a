package watch

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// Notifier is the part of fsnotify that a Watcher uses; tests put their own in its place.
type Notifier interface {
	Add(dir string) error
	Remove(dir string) error
	Close() error
}

// Source is a Notifier and where its news arrive. Both channels close with it.
type Source struct {
	Notifier
	Events <-chan fsnotify.Event
	Errors <-chan error
}

// open makes the daemon's one inotify instance.
func open() (Source, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return Source{}, explain("", err)
	}
	return Source{Notifier: w, Events: w.Events, Errors: w.Errors}, nil
}

// explain turns the kernel's words for a used-up limit into what to do about it.
func explain(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("watch %s: the kernel's limit on watched directories is reached (%s); raise it with: sysctl fs.inotify.max_user_watches=1048576: %w",
			dir, limit("max_user_watches"), err)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("no inotify instance is left (%s); raise the limit with: sysctl fs.inotify.max_user_instances=1024, or the limit on open files: %w",
			limit("max_user_instances"), err)
	case dir == "":
		return fmt.Errorf("start watching files: %w", err)
	}
	return fmt.Errorf("watch %s: %w", dir, err)
}

func limit(name string) string {
	b, err := os.ReadFile("/proc/sys/fs/inotify/" + name)
	if err != nil {
		return name + " unknown"
	}
	return name + " = " + strings.TrimSpace(string(b))
}
