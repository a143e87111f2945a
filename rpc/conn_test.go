package rpc

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if daemonDir != "" {
			os.RemoveAll(daemonDir)
		}
		os.Exit(code)
	}))
}

func call(id any, method, params string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%v,"method":%q,"params":%s}`, id, method, params)
}

func note(method string) string { return fmt.Sprintf(`{"jsonrpc":"2.0","method":%q}`, method) }

const aSession = "11111111-1111-4111-8111-111111111111"

func create(id any, session, message, more string) string {
	return call(id, "checkpoint.create", fmt.Sprintf(`{"session_id":%q,"message":%q%s}`, session, message, more))
}

func briefs(t *testing.T, array string) []string {
	t.Helper()
	var replies []json.RawMessage
	if err := json.Unmarshal([]byte(array), &replies); err != nil {
		t.Fatalf("%.200q is no array: %v", array, err)
	}
	out := []string{}
	for _, r := range replies {
		out = append(out, brief(t, string(r)))
	}
	sort.Strings(out)
	return out
}
