package main

import (
	"context"
	"fmt"

	"github.com/forge-cpd/forge-cpd/client"
	"github.com/forge-cpd/forge-cpd/rpc"
)

// checkRunning lets the daemon read its whole store again.
func (a *app) checkRunning(ctx context.Context, c *client.Client, ref rpc.SessionRef) (*rpc.ValidateAllResult, error) {
	if terminal(a.stderr) > 0 {
		a.say("the daemon reads its store again …")
	}
	return c.ValidateAll(ctx, ref)
}

// printReport tells what a check of the store found; the exit code says whether it is whole.
func (a *app) printReport(r *rpc.ValidateAllResult) error {
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else if err := a.reportText(r); err != nil {
		return err
	}
	switch {
	case r.Invalid > 0 || len(r.Problems) > 0:
		return &exitError{code: exitDamaged}
	case r.Skipped > 0:
		return &exitError{code: exitFailed, err: fmt.Errorf("%s could not be read: mend the disk or its permissions, then check again", plural(r.Skipped, "file"))}
	}
	return nil
}

func (a *app) reportText(r *rpc.ValidateAllResult) error {
	st := a.style()
	for _, p := range r.Problems {
		what := plain(p.Path)
		if !p.CheckpointID.IsZero() {
			what += "  checkpoint " + p.CheckpointID.String()
		}
		if _, err := fmt.Fprintf(a.stdout, "%s  %s: %s\n", st.bad("damaged"), what, plain(p.Problem)); err != nil {
			return err
		}
	}
	verdict := st.good("sound")
	if !r.AllValid {
		verdict = st.bad("damaged")
	}
	_, err := fmt.Fprintf(a.stdout, "%s: %d of %s read again are whole, %d damaged, %d unread\n", verdict, r.Valid, plural(r.Total, "checkpoint"), r.Invalid, r.Skipped)
	return err
}
