package autotrigger

import (
	"slices"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/forge-cpd/forge-cpd/checkpoint"
)

// policy is what the gate and the timers need of an AutoConfig, in few bytes: there may
// be tens of thousands. The configuration itself stays with its owner.
type policy struct {
	interval, gap time.Duration
	cron          cron.Schedule // nil: none, or it is every
	every         time.Duration // of @every; 0: none
	causes        uint16        // a bit for each of SeedCauses
	onError       bool
	onToolCall    bool
	skipUnchanged bool
}

func newPolicy(cfg checkpoint.AutoConfig, now time.Time) (*policy, error) {
	p := &policy{
		interval: time.Duration(cfg.IntervalSeconds) * time.Second, gap: time.Duration(cfg.MinGapSeconds) * time.Second,
		onError: cfg.OnError, onToolCall: cfg.OnToolCall, skipUnchanged: cfg.SkipUnchanged,
	}
	for _, c := range cfg.Causes {
		if i := slices.Index(checkpoint.SeedCauses, c); i >= 0 {
			p.causes |= 1 << i
		}
	}
	if cfg.Cron == "" {
		return p, nil
	}
	s, err := ParseCron(cfg.Cron, now)
	if err != nil {
		return nil, checkpoint.Invalid("cron", "%w", err)
	}
	if d, ok := s.(cron.ConstantDelaySchedule); ok {
		p.every = d.Delay // from its last run, which the schedule does not know
		return p, nil
	}
	p.cron = s
	return p, nil
}

// enabled tells whether a session with this policy (nil: no automation) takes the cause.
func (p *policy) enabled(c checkpoint.Cause) bool {
	seed := slices.Index(checkpoint.SeedCauses, c)
	switch {
	case p == nil:
		return seed >= 0
	case seed >= 0:
		return p.causes&(1<<seed) != 0
	case c == checkpoint.CauseError:
		return p.onError
	case c == checkpoint.CauseToolCall:
		return p.onToolCall
	}
	return true
}

// window is how young the newest checkpoint may be to throttle significant_time_passed.
func (p *policy) window(otherwise time.Duration) time.Duration {
	if p == nil || p.interval == 0 {
		return otherwise
	}
	return p.interval
}

// gate decides about a trigger before anything is read. Times are those of the newest
// checkpoint of any kind and of the newest that was not manual.
func (p *policy) gate(t Trigger, now, newest, newestAuto time.Time, window time.Duration) Skipped {
	if t.Always {
		return ""
	}
	if !p.enabled(t.Cause) {
		return NotEnabled
	}
	if t.Cause == checkpoint.CauseSignificantTimePassed && younger(now, newest, p.window(window)) {
		return Throttled
	}
	if p != nil && !gapless(t.Cause) && younger(now, newestAuto, p.gap) {
		return Throttled
	}
	return ""
}

// gapless causes are taken however young the newest checkpoint is: a last moment to save
// something is never given away, and a prompt comes no faster than someone types.
func gapless(c checkpoint.Cause) bool {
	return c == checkpoint.CauseDisconnect || c == checkpoint.CauseContextCompactionWarning || c == checkpoint.CausePrompt
}

// younger tells whether then is less than d ago. A time in the future, after the clock
// was set back, is not held against anyone.
func younger(now, then time.Time, d time.Duration) bool {
	age := now.Sub(then)
	return !then.IsZero() && age >= 0 && age < d
}
