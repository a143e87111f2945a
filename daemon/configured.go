package daemon

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"time"

	"github.com/forge-cpd/forge-cpd/autotrigger"
	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/daemon/config"
	"github.com/forge-cpd/forge-cpd/storage"
)

// checkConfig finds mistakes that package config cannot: cron specs and globs.
func checkConfig(cfg *config.Config) error {
	if err := autotrigger.Validate(cfg.Auto, ""); err != nil {
		return cfg.Errorf("auto", "%v", err)
	}
	for i, s := range cfg.Sessions {
		if s.Auto == nil {
			continue
		}
		if err := autotrigger.Validate(*s.Auto, ""); err != nil {
			return cfg.Errorf(fmt.Sprintf("sessions[%d].auto", i), "%v", err)
		}
	}
	if cfg.Scrub.Cron != "" {
		if _, err := autotrigger.ParseCron(cfg.Scrub.Cron, time.Now()); err != nil {
			return cfg.Errorf("scrub.cron", "%v", err)
		}
	}
	return nil
}

// autoOf is what a session of the file gets: its own, else the file's `auto:`.
func autoOf(cfg *config.Config, s config.Session) *checkpoint.AutoConfig {
	auto := cfg.Auto
	if s.Auto != nil {
		auto = *s.Auto
	}
	return &auto
}

// keepConfigured opens the sessions that the configuration names and keeps them in step
// with it. Those that old named and cfg does not keep all but their automation.
func (s *service) keepConfigured(ctx context.Context, old, cfg *config.Config) error {
	named := map[string]bool{}
	for _, want := range cfg.Sessions {
		named[want.Key] = true
		if err := s.keepOne(ctx, cfg, want); err != nil {
			return fmt.Errorf("session %q of the configuration: %w", want.Key, err)
		}
	}
	if old == nil {
		return nil
	}
	for _, was := range old.Sessions {
		if named[was.Key] {
			continue
		}
		if err := s.endAutomation(ctx, was.Key); err != nil {
			return fmt.Errorf("session %q, which the configuration no longer names: %w", was.Key, err)
		}
	}
	return nil
}

func (s *service) keepOne(ctx context.Context, cfg *config.Config, want config.Session) error {
	name := want.Name
	if name == "" {
		name = want.Key
	}
	labels := want.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	auto := autoOf(cfg, want)
	sess, existing, err := s.store.CreateSession(ctx, storage.NewSession{
		Key: want.Key, Name: name, Labels: labels, OwnerUID: s.uid, Auto: auto,
	})
	if err != nil {
		return err
	}
	if existing {
		c := storage.SessionChange{}
		if sess.Name != name {
			c.Name = &name
		}
		if !maps.Equal(sess.Labels, labels) {
			c.Labels = &labels
		}
		if sess.Status == checkpoint.Closed {
			c.Status = ptr(checkpoint.Active)
		}
		if !reflect.DeepEqual(sess.Auto, auto) {
			c.Auto = &auto
		}
		if c.Name != nil || c.Labels != nil || c.Status != nil || c.Auto != nil {
			if sess, err = s.store.ChangeSession(ctx, sess.ID, c); err != nil {
				return err
			}
		}
	}
	kept, err := s.keptAuto(ctx, sess.ID)
	if err != nil {
		return err
	}
	if !kept.Configured {
		if err := s.keepAuto(ctx, sess.ID, func(k *keptAuto) { k.Configured = true }); err != nil {
			return err
		}
	}
	return s.automate(ctx, sess)
}

func (s *service) endAutomation(ctx context.Context, key string) error {
	sess, err := s.store.Session(ctx, storage.Ref{Key: key})
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if sess, err = s.leaveAlone(ctx, sess.ID); err != nil {
		return err
	}
	return s.automate(ctx, sess)
}

// automateAll hands every session to the engine at start, and adds up what their triggers
// did before: the totals survive a restart as the sessions' own counts do. The automation
// of one that cfg named once and does so no more ends here.
func (s *service) automateAll(ctx context.Context, cfg *config.Config) error {
	named := map[string]bool{}
	for _, c := range cfg.Sessions {
		named[c.Key] = true
	}
	return s.eachSession(ctx, storage.SessionQuery{}, func(sess checkpoint.Session) error {
		kept, err := s.keptAuto(ctx, sess.ID)
		if err != nil {
			return err
		}
		if kept.Configured && !named[sess.Key] {
			if sess, err = s.leaveAlone(ctx, sess.ID); err != nil {
				return err
			}
		}
		// Without an automation there may still be counts.
		if sess.Status == checkpoint.Active && (sess.Auto != nil || len(kept.Engine) > 0) {
			if err := s.automate(ctx, sess); err != nil {
				return err
			}
		}
		st := s.auto.Status(sess.ID)
		s.metrics.autoTaken.Add(st.Taken)
		s.metrics.autoSkipped.Add(st.Skipped)
		s.metrics.autoFailed.Add(st.Failed)
		return nil
	})
}

// leaveAlone ends an automation that was the configuration's.
func (s *service) leaveAlone(ctx context.Context, id checkpoint.ID) (checkpoint.Session, error) {
	sess, err := s.store.ChangeSession(ctx, id, storage.SessionChange{Auto: ptr[*checkpoint.AutoConfig](nil)})
	if err != nil {
		return sess, err
	}
	return sess, s.keepAuto(ctx, id, func(k *keptAuto) { k.Configured = false })
}
