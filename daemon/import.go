package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
	"github.com/forge-cpd/forge-cpd/rpc"
	"github.com/forge-cpd/forge-cpd/storage"
)

// StoreImport takes one page in.
func (s *service) StoreImport(ctx context.Context, p *rpc.ImportParams) (*rpc.ImportResult, error) {
	if err := s.notDraining(ctx); err != nil {
		return nil, err
	}
	owner := s.uid
	if peer := rpc.PeerFrom(ctx); peer != nil {
		owner = peer.UID()
	}
	data := []byte(p.Data)
	if o := s.owner(ctx); o != nil {
		var err error
		if data, err = s.ownPage(ctx, data, *o); err != nil {
			return nil, err
		}
	}
	r, err := s.store.Import(context.WithoutCancel(ctx), data, owner)
	if err != nil {
		return nil, err
	}
	out := &rpc.ImportResult{Imported: r.Imported, Skipped: r.Skipped, Renumbered: r.Renumbered, Rejected: []rpc.Rejected{}}
	for _, q := range r.Rejected {
		out.Rejected = append(out.Rejected, rpc.Rejected(q))
	}
	return out, s.automateImported(ctx, p.Data)
}

// automateImported starts the automation of the sessions that a page brought.
func (s *service) automateImported(ctx context.Context, page []byte) error {
	list := rawjson.Member(page, "sessions")
	if len(list) == 0 || list[0] != '[' {
		return nil
	}
	return rawjson.Elements(list, func(_ int, v []byte) error {
		var named struct {
			ID   checkpoint.ID   `json:"id"`
			Auto json.RawMessage `json:"auto"`
		}
		if json.Unmarshal(v, &named) != nil || len(named.Auto) == 0 {
			return nil // rejected by the store, or nothing to start
		}
		sess, err := s.store.Session(ctx, storage.Ref{ID: named.ID})
		if isNotFound(err) || err == nil && (sess.Status == checkpoint.Closed || sess.Auto == nil) {
			return nil
		}
		if err != nil {
			return err
		}
		return s.automate(ctx, sess)
	})
}

// ownPage makes a page that another user imports that user's own: its sessions get their
// uid and lose what makes the daemon read files. A page that would write into somebody
// else's session is refused. The checkpoints' bytes stay as they are.
func (s *service) ownPage(ctx context.Context, page []byte, uid uint32) ([]byte, error) {
	foreign := func(id checkpoint.ID) error {
		sess, err := s.store.Session(ctx, storage.Ref{ID: id})
		if isNotFound(err) || err == nil && sess.OwnerUID == uid {
			return nil
		}
		if err != nil {
			return err
		}
		return checkpoint.Errorf(checkpoint.KindConflict, "the id of session %s is taken: import this page as the user who made it, or as root", id)
	}
	var out bytes.Buffer
	out.WriteByte('{')
	err := rawjson.Members(page, func(name string, value []byte) error {
		var err error
		switch {
		case strings.EqualFold(name, "checkpoints") && value[0] == '[':
			err = eachSessionID(value, foreign)
		case strings.EqualFold(name, "sessions") && value[0] == '[':
			value, err = ownSessions(value, uid, foreign)
		}
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		out.Write(quote(name))
		out.WriteByte(':')
		out.Write(value)
		return err
	})
	out.WriteByte('}')
	return out.Bytes(), err
}

// eachSessionID calls f with whatever a decoder may take for an entry's session: members
// that differ in case, and all of doubled ones. What is no id the store rejects.
func eachSessionID(list []byte, f func(checkpoint.ID) error) error {
	return rawjson.Elements(list, func(_ int, v []byte) error {
		if len(v) == 0 || v[0] != '{' {
			return nil
		}
		return rawjson.Members(v, func(name string, value []byte) error {
			if !strings.EqualFold(name, "session_id") || len(value) == 0 || value[0] != '"' {
				return nil
			}
			text, err := rawjson.String(value)
			if err != nil {
				return nil
			}
			id, err := checkpoint.ParseID(text)
			if err != nil {
				return nil
			}
			return f(id)
		})
	})
}

func ownSessions(list []byte, uid uint32, foreign func(checkpoint.ID) error) ([]byte, error) {
	out := []json.RawMessage{}
	err := rawjson.Elements(list, func(_ int, v []byte) error {
		var sess checkpoint.Session
		if len(v) == 0 || v[0] != '{' || json.Unmarshal(v, &sess) != nil {
			out = append(out, v) // the store tells what is wrong with it
			return nil
		}
		if err := foreign(sess.ID); err != nil {
			return err
		}
		sess.OwnerUID = uid
		if sess.Auto != nil {
			sess.Auto.Watch, sess.Auto.Capture.Files = []checkpoint.Watch{}, []string{}
		}
		b, err := json.Marshal(sess)
		out = append(out, b)
		return err
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}
