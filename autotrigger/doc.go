// Package autotrigger decides when the daemon takes a checkpoint by itself: timers,
// cron, changed files, the tool calls and errors of an agent's transcript, and what
// clients report with auto.trigger. It knows no store and no socket: New is handed the
// function that takes a checkpoint, and everything else flows from there.
//
// An Engine is made with New, told of sessions with Set, and works while Run runs.
// Decode reads an AutoConfig from a client or from the configuration file.
//
// # Time
//
// An interval counts from the session's newest checkpoint, whoever took it, so a restart
// neither repeats nor forgets a run; @every counts from its own last run. Cron specs are in
// local time unless they begin with CRON_TZ=Zone. When clocks go forward, a time inside the
// gap is left out that day; when they go back, a time inside the repeated hour runs twice.
// Missed cron runs are not made up for; a late interval, or @every, runs once.
package autotrigger
