package rpc

import (
	"fmt"
	"strings"
	"testing"
)

const info = `{"jsonrpc":"2.0","id":%s,"method":"daemon.info"}`

// TestOneMessage sends one line and expects one line; the connection lives on.
func TestOneMessage(t *testing.T) {
	_, path := serve(t, newFake(), nil)
	id := `"11111111-1111-4111-8111-111111111111"`
	create := func(members string) string {
		return `{"jsonrpc":"2.0","id":7,"method":"checkpoint.create","params":{"session_id":` + id + `,` + members + `}}`
	}
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for name, c := range map[string]struct{ in, want string }{
		"number":          {fmt.Sprintf(info, "1"), "1 ok"},
		"zero":            {fmt.Sprintf(info, "0"), "0 ok"},
		"negative":        {fmt.Sprintf(info, "-1"), "-1 ok"},
		"beyond 64 bits":  {fmt.Sprintf(info, "123456789012345678901234567890"), "123456789012345678901234567890 ok"},
		"fraction":        {fmt.Sprintf(info, "1.50"), "1.50 ok"},
		"exponent":        {fmt.Sprintf(info, "1e3"), "1e3 ok"},
		"string":          {fmt.Sprintf(info, `"a\u0041\/é"`), `"a\u0041\/é" ok`},
		"surrogate id":    {fmt.Sprintf(info, `"\ud800"`), `"\ud800" ok`},
		"empty string":    {fmt.Sprintf(info, `""`), `"" ok`},
		"null":            {fmt.Sprintf(info, "null"), "null ok"},
		"id object":       {fmt.Sprintf(info, "{}"), "null -32600"},
		"id array":        {fmt.Sprintf(info, "[1]"), "null -32600"},
		"id boolean":      {fmt.Sprintf(info, "true"), "null -32600"},
		"white space":     {" \t" + strings.ReplaceAll(fmt.Sprintf(info, "1"), ":", " : ") + " \r", "1 ok"},
		"bad JSON":        {`{"jsonrpc": "2.0", "method`, "null -32700"},
		"HTTP":            {"GET / HTTP/1.1\r", "null -32700"},
		"two values":      {fmt.Sprintf(info, "1") + fmt.Sprintf(info, "2"), "null -32700"},
		"byte order mark": {"\ufeff" + fmt.Sprintf(info, "1"), "null -32700"},
		"scalar":          {"7", "null -32600"},
		"string value":    {`"x"`, "null -32600"},
		"no version":      {`{"id":1,"method":"daemon.info"}`, "null -32600"},
		"version 1":       {`{"jsonrpc":"1.0","id":1,"method":"daemon.info"}`, "null -32600"},
		"version number":  {`{"jsonrpc":2.0,"id":1,"method":"daemon.info"}`, "null -32600"},
		"no method":       {`{"jsonrpc":"2.0","id":1}`, "null -32600"},
		"method number":   {`{"jsonrpc":"2.0","id":1,"method":1}`, "null -32600"},
		"method twice":    {`{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}`, "null -32600"},
		"unknown method":  {`{"jsonrpc":"2.0","id":1,"method":"no.such"}`, "1 -32601"},
		"empty batch":     {"[ ]", "null -32600"},
		"params array":    {`{"jsonrpc":"2.0","id":1,"method":"daemon.info","params":[]}`, "1 -32602 params"},
		"params scalar":   {`{"jsonrpc":"2.0","id":1,"method":"daemon.info","params":7}`, "1 -32602 params"},
		"params null":     {`{"jsonrpc":"2.0","id":1,"method":"daemon.info","params":null}`, "1 -32602 params"},
		"params empty":    {`{"jsonrpc":"2.0","id":1,"method":"daemon.info","params":{ }}`, "1 ok"},
		"unknown member":  {create(`"message":"m","colour":1`), "7 -32602 colour"},
		"member twice":    {create(`"message":"m","message":"m"`), "7 -32602 message"},
		"missing member":  {create(`"tags":[]`), "7 -32602 message"},
		"no session":      {`{"jsonrpc":"2.0","id":7,"method":"checkpoint.create","params":{"message":"m"}}`, "7 -32602 session_id"},
		"id and key":      {create(`"message":"m","key":"k"`), "7 -32602 key"},
		"wrong type":      {create(`"message":7`), "7 -32602 message"},
		"null type":       {create(`"message":null`), "7 -32602 message"},
		"tag":             {create(`"message":"m","tags":["a",1]`), "7 -32602 tags[1]"},
		"tag surrogate":   {create(`"message":"m","tags":["a","b","\udc00"]`), "7 -32602 tags[2]"},
		"msg surrogate":   {create(`"message":"\ud800"`), "7 -32602 message"},
		"state surrogate": {create(`"message":"m","state":"\ud800","metadata":{"a":"\udfff"}`), "7 ok"},
		"bad id":          {create(`"message":"m","parent_id":"../x"`), "7 -32602 parent_id"},
		"upper id":        {create(`"message":"m","parent_id":"AAAAAAAA-AAAA-4AAA-8AAA-AAAAAAAAAAAA"`), "7 -32602 parent_id"},
		"metadata":        {create(`"message":"m","metadata":[]`), "7 -32602 metadata"},
		"metadata size":   {create(`"message":"m","metadata":{"a":"` + strings.Repeat("x", 65<<10) + `"}`), "7 -32005 metadata"},
		"message size":    {create(`"message":"` + strings.Repeat("x", 17<<10) + `"`), "7 -32602 message"},
		"many tags":       {create(`"message":"m","tags":["` + strings.Repeat(`","`, 64) + `"]`), "7 -32602 tags"},
		"state null":      {create(`"message":"m","state":null`), "7 ok"},
		"state size":      {create(`"message":"m","state":"` + strings.Repeat("x", 16<<20) + `"`), "7 -32005 state"},
		"state largest":   {create(`"message":"m","state":"` + strings.Repeat("x", 16<<20-2) + `"`), "7 ok"},
		"frame size":      {create(`"message":"m","state":"` + strings.Repeat("x", 40<<20) + `"`), "null -32005"},
		"depth":           {create(`"message":"m","state":` + deep(1000)), "7 ok"},
		"too deep":        {create(`"message":"m","state":` + deep(1001)), "7 -32602 state"},
		"far too deep":    {create(`"message":"m","state":` + deep(100000)), "7 -32602 state"},
		"deep in batch":   {"[" + create(`"message":"m","state":`+deep(1001)) + "]", ""},
		"deep elsewhere":  {`{"jsonrpc":"2.0","id":1,"method":"daemon.info","x":` + deep(2000) + `}`, "null -32600"},
		"deep bad":        {strings.Repeat("[", 100000), "null -32700"},
		"UTF-8 state":     {create("\"message\":\"m\",\"state\":[\"\xff\"]"), "7 -32602 state"},
		"UTF-8 tag":       {create("\"message\":\"m\",\"tags\":[\"a\",\"\xc0\x80\"]"), "7 -32602 tags[1]"},
		"UTF-8 name":      {create("\"message\":\"m\",\"\xff\":1"), "7 -32602 params"},
		"UTF-8 elsewhere": {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"daemon.info\",\"x\":\"\xff\"}", "null -32700"},
		"UTF-8 id":        {"{\"jsonrpc\":\"2.0\",\"id\":\"\xff\",\"method\":\"daemon.info\"}", "null -32700"},
		"limit 0":         {`{"jsonrpc":"2.0","id":7,"method":"checkpoint.list","params":{"limit":0}}`, "7 -32602 limit"},
		"limit 1001":      {`{"jsonrpc":"2.0","id":7,"method":"checkpoint.list","params":{"limit":1001}}`, "7 -32602 limit"},
		"limit fraction":  {`{"jsonrpc":"2.0","id":7,"method":"checkpoint.list","params":{"limit":1.5}}`, "7 -32602 limit"},
		"order":           {`{"jsonrpc":"2.0","id":7,"method":"checkpoint.list","params":{"order":"up"}}`, "7 -32602 order"},
		"cause":           {`{"jsonrpc":"2.0","id":7,"method":"checkpoint.list","params":{"cause":"x"}}`, "7 -32602 cause"},
		"at neither":      {`{"jsonrpc":"2.0","id":7,"method":"checkpoint.at","params":{"session_id":` + id + `}}`, "7 -32602 time"},
		"no rule":         {`{"jsonrpc":"2.0","id":7,"method":"checkpoint.compact","params":{"session_id":` + id + `}}`, "7 -32602 keep_recent"},
		"panic":           {create(`"message":"panic"`), "7 -32603"},
		"odd error":       {create(`"message":"odd"`), "7 -32603"},
		"not found":       {`{"jsonrpc":"2.0","id":7,"method":"checkpoint.get","params":{"checkpoint_id":` + id + `}}`, "7 -32001"},
	} {
		t.Run(name, func(t *testing.T) {
			w := dial(t, path)
			got := w.ask(c.in)
			if c.want == "" {
				if got = strings.TrimSuffix(strings.TrimPrefix(got, "["), "]"); brief(t, got) != "7 -32602 state" {
					t.Errorf("got %s", got)
				}
			} else if b := brief(t, got); b != c.want {
				t.Errorf("got %s (%.300s), want %s", b, got, c.want)
			}
			if strings.Contains(got, "secret") {
				t.Errorf("an inner error went out: %s", got)
			}
			if b := brief(t, w.ask(fmt.Sprintf(info, `"next"`))); b != `"next" ok` {
				t.Errorf("the next request got %s", b)
			}
		})
	}
}
