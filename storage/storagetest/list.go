package storagetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/storage"
)

var listTests = map[string]func(*harness){
	"ListFilters":                 listFilters,
	"ListPagesMissNothing":        listPages,
	"PagesWhileTheStoreChanges":   pagesWhileChanging,
	"ListRefusesAForeignCursor":   foreignCursor,
	"ListShowsOwnersTheirOwnOnly": listOwner,
}

func listFilters(h *harness) {
	a, b := h.session("a"), h.session("b")
	var made []checkpoint.Receipt
	add := func(r checkpoint.Receipt) { made = append(made, r); h.advance(time.Hour) }
	add(h.create(a.ID, "Alpha one", tags("x", "y")))
	add(h.create(a.ID, "beta", tags("y"), metadata(`{"k":"v","n":1,"o":{"p":[1,2]}}`)))
	add(h.create(b.ID, "gamma", tags("Zeta"), metadata(`{"k":"w"}`)))
	add(h.create(b.ID, "delta ÜBER", cause(checkpoint.CauseError)))
	add(h.create(a.ID, "epsilon", cause(checkpoint.CauseCron), metadata(`{"n":null}`)))
	add(h.create(a.ID, "zeta", cause(checkpoint.CauseToolCall), tags("x")))
	all := []string{"Alpha one", "beta", "gamma", "delta ÜBER", "epsilon", "zeta"}
	pick := func(i ...int) []string {
		want := []string{}
		for _, n := range i {
			want = append(want, all[n])
		}
		return want
	}
	at := func(i int) time.Time { return made[i].Timestamp }
	for name, c := range map[string]struct {
		q    storage.Query
		want []string
	}{
		"all":                  {storage.Query{}, all},
		"session":              {storage.Query{SessionID: b.ID}, pick(2, 3)},
		"one tag":              {storage.Query{Tags: []string{"y"}}, pick(0, 1)},
		"all tags":             {storage.Query{Tags: []string{"x", "y"}}, pick(0)},
		"any tag":              {storage.Query{Tags: []string{"x", "y"}, AnyTag: true}, pick(0, 1, 5)},
		"tag's case counts":    {storage.Query{Tags: []string{"zeta"}}, pick()},
		"manual":               {storage.Query{Trigger: checkpoint.Manual}, pick(0, 1, 2)},
		"automatic":            {storage.Query{Trigger: checkpoint.Automatic}, pick(3, 5)},
		"scheduled":            {storage.Query{Trigger: checkpoint.Scheduled}, pick(4)},
		"cause":                {storage.Query{Cause: checkpoint.CauseError}, pick(3)},
		"from":                 {storage.Query{From: made[4].Sequence}, pick(4, 5)},
		"to":                   {storage.Query{To: made[1].Sequence}, pick(0, 1)},
		"from and to":          {storage.Query{From: made[1].Sequence, To: made[3].Sequence}, pick(1, 2, 3)},
		"upside down":          {storage.Query{From: made[3].Sequence, To: made[1].Sequence}, pick()},
		"since":                {storage.Query{Since: at(4)}, pick(4, 5)},
		"after":                {storage.Query{Since: at(4).Add(1)}, pick(5)},
		"until":                {storage.Query{Until: at(1)}, pick(0, 1)},
		"before":               {storage.Query{Until: at(1).Add(-1)}, pick(0)},
		"text in a message":    {storage.Query{Text: "ALPHA"}, pick(0)},
		"text in a tag":        {storage.Query{Text: "zeta"}, pick(2, 5)},
		"text, not ascii":      {storage.Query{Text: "über"}, pick(3)},
		"metadata":             {storage.Query{Metadata: json.RawMessage(`{"k":"v"}`)}, pick(1)},
		"metadata, all of it":  {storage.Query{Metadata: json.RawMessage(`{"n":1,"k":"v"}`)}, pick(1)},
		"metadata, nested":     {storage.Query{Metadata: json.RawMessage(`{"o":{"p":[1,2]}}`)}, pick(1)},
		"metadata, null":       {storage.Query{Metadata: json.RawMessage(`{"n":null}`)}, pick(4)},
		"metadata, another":    {storage.Query{Metadata: json.RawMessage(`{"k":"v","n":2}`)}, pick()},
		"metadata, none asked": {storage.Query{Metadata: json.RawMessage(`{}`)}, all},
		"together":             {storage.Query{SessionID: a.ID, Tags: []string{"y"}, Text: "bet", Trigger: checkpoint.Manual}, pick(1)},
	} {
		h.Log(name)
		check := func() {
			for _, limit := range []int{0, 1, 2, 1000} {
				c.q.Limit, c.q.Descending = limit, false
				h.equal("ascending", messages(h.all(c.q)), c.want)
				c.q.Descending = true
				down := slices.Clone(c.want)
				slices.Reverse(down)
				h.equal("descending", messages(h.all(c.q)), down)
			}
		}
		check()
	}
	h.reopen()
	h.equal("opened anew", messages(h.all(storage.Query{Text: "zeta"})), pick(2, 5))
	h.equal("opened anew", messages(h.all(storage.Query{Metadata: json.RawMessage(`{"k":"v"}`)})), pick(1))
	h.equal("opened anew", messages(h.all(storage.Query{Tags: []string{"x", "y"}})), pick(0))
}

func listPages(h *harness) {
	sessions := []checkpoint.ID{h.session("a").ID, h.session("b").ID}
	var want []string
	for i := range 25 {
		m := fmt.Sprint(i)
		h.create(sessions[i%2], m, tags([]string{"even", "odd"}[i%2]))
		want = append(want, m)
	}
	h.twice(func() {
		for _, limit := range []int{1, 7, 24, 25, 26} {
			h.equal("all", messages(h.all(storage.Query{Limit: limit})), want)
			h.equal("odd", len(h.all(storage.Query{Limit: limit, Tags: []string{"odd"}})), 12)
			h.equal("a", len(h.all(storage.Query{Limit: limit, SessionID: sessions[0], Descending: true})), 13)
		}
	})
	// A cursor outlives the process that gave it.
	page, err := h.s.List(h.Context(), storage.Query{Limit: 10})
	h.must(err)
	h.reopen()
	h.equal("the rest", messages(h.all(storage.Query{Limit: 10, Cursor: page.Next})), want[10:])
}

func pagesWhileChanging(h *harness) {
	s := h.session("s")
	var made []checkpoint.Receipt
	for i := range 6 {
		made = append(made, h.create(s.ID, fmt.Sprint(i)))
	}
	page, err := h.s.List(h.Context(), storage.Query{SessionID: s.ID, Limit: 3})
	h.must(err)
	h.must(h.s.Delete(h.Context(), made[2].CheckpointID)) // the one that the cursor stands on
	h.must(h.s.Delete(h.Context(), made[4].CheckpointID))
	h.create(s.ID, "new")
	h.equal("the rest", messages(h.all(storage.Query{SessionID: s.ID, Limit: 3, Cursor: page.Next})), []string{"3", "5", "new"})
}

func foreignCursor(h *harness) {
	h.create(h.session("s").ID, "x")
	for _, cursor := range []string{"no cursor", "-1", "\x00", "99999999999999999999999"} {
		_, err := h.s.List(h.Context(), storage.Query{Cursor: cursor})
		h.want(err, checkpoint.ErrInvalidParams)
	}
}

func listOwner(h *harness) {
	for _, uid := range []uint32{1, 2} {
		s, _, err := h.s.CreateSession(h.Context(), storage.NewSession{OwnerUID: uid})
		h.must(err)
		for i := range 3 {
			h.create(s.ID, fmt.Sprint(uid, i))
		}
	}
	h.twice(func() {
		h.equal("of 2", messages(h.all(storage.Query{Owner: ptr(uint32(2)), Limit: 2})), []string{"2 0", "2 1", "2 2"})
		h.equal("of 0", len(h.all(storage.Query{Owner: ptr(uint32(0))})), 0)
	})
}
