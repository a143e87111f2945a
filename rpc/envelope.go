package rpc

import (
	"errors"
	"strconv"
	"time"

	"github.com/forge-cpd/forge-cpd/checkpoint"
	"github.com/forge-cpd/forge-cpd/checkpoint/rawjson"
)

// request is one call or notification from a peer, from its frame to its reply. The library
// sees only id; what was sent stays here.
type request struct {
	id       uint64 // ours
	rawID    []byte // as sent; nil for a notification
	method   string
	params   []byte   // compact; nil for none
	members  []member // of params, where the scan of the frame has found them; nil: walk
	bad      error    // why params cannot be used
	batch    *batch
	frame    *frameShare
	received time.Time
	after    []func()
	reply    [][]byte
}

// response is a peer's answer to a call of ours.
type response struct {
	id          string
	result, err []byte
}

// envelope is what one message turned out to be: a request, a response, or an error to be
// told with the id null.
type envelope struct {
	req  *request
	resp *response
	err  error
}

// refusal is an error of the whole message: its id is not told back.
func refusal(kind checkpoint.Kind, format string, args ...any) envelope {
	return envelope{err: checkpoint.Errorf(kind, format, args...)}
}

// member is one of an object: its name with the quotes, and its value.
type member struct{ key, value []byte }

// split takes the members of a message and of its params out of a frame's marks.
func split(msg []byte, marks []rawjson.Mark) (outer, params []member) {
	inParams := false
	for _, k := range marks {
		m := member{key: msg[k.Key:k.KeyEnd:k.KeyEnd], value: msg[k.Value:k.End:k.End]}
		switch {
		case k.Depth == 1:
			outer = append(outer, m)
			inParams = string(m.key) == `"params"`
		case inParams:
			if params == nil {
				params = make([]member, 0, 8)
			}
			params = append(params, m)
		}
	}
	return outer, params
}

// each calls f for the members of an object.
func each(obj []byte, members []member, f func(key string, value []byte) error) error {
	if members == nil {
		return rawjson.Members(obj, f)
	}
	for _, m := range members {
		key, err := rawjson.String(m.key)
		if err != nil {
			return err
		}
		if err := f(key, m.value); err != nil {
			return err
		}
	}
	return nil
}

// parse reads one compact message. A suspect one was let through without a look at its
// depth and its UTF-8, and is looked at here.
func parse(msg []byte, marks []rawjson.Mark, suspect bool, depth int) envelope {
	if msg[0] != '{' {
		return refusal(checkpoint.KindInvalidRequest, "a request is an object, or an array of them")
	}
	var version, id, method, params, result, failure []byte
	twice := ""
	outer, inner := split(msg, marks)
	err := each(msg, outer, func(key string, value []byte) error {
		var slot *[]byte
		switch key {
		case "jsonrpc":
			slot = &version
		case "id":
			slot = &id
		case "method":
			slot = &method
		case "params":
			slot = &params
		case "result":
			slot = &result
		case "error":
			slot = &failure
		default:
			return nil
		}
		if *slot != nil {
			twice = key
		}
		*slot = value
		return nil
	})
	var bad error
	isReply := method == nil && id != nil && (result != nil || failure != nil)
	if suspect && isReply {
		bad = rawjson.Valid(msg, depth+2)
	} else if suspect {
		var elsewhere *checkpoint.Error
		if elsewhere, bad = blame(msg, params, depth); elsewhere != nil {
			return envelope{err: elsewhere}
		}
	}
	switch {
	case err != nil:
		return refusal(checkpoint.KindParse, "%s", err.Error())
	case twice != "":
		return refusal(checkpoint.KindInvalidRequest, "the member %s is there twice", twice)
	case string(version) != `"2.0"`:
		return refusal(checkpoint.KindInvalidRequest, `"jsonrpc" must be "2.0"`)
	case id != nil && (id[0] == '{' || id[0] == '[' || id[0] == 't' || id[0] == 'f'):
		return refusal(checkpoint.KindInvalidRequest, "an id is a string, a number or null")
	case isReply:
		name, _ := rawjson.String(id)
		if bad != nil {
			result, failure = nil, []byte(`{"code":-32600,"message":"the reply is not usable"}`)
		}
		return envelope{resp: &response{id: name, result: result, err: failure}}
	case method == nil:
		return refusal(checkpoint.KindInvalidRequest, "the method is missing")
	case !rawjson.IsString(method):
		return refusal(checkpoint.KindInvalidRequest, "the method must be a string")
	}
	name, err := rawjson.Unquote(method)
	if err != nil {
		return refusal(checkpoint.KindInvalidRequest, "the method: %s", err.Error())
	}
	return envelope{req: &request{rawID: id, method: name, params: params, members: inner, bad: bad}}
}

// blame finds out where a message is too deep or not UTF-8: in a param, which is told with
// the request's own id, or elsewhere.
func blame(msg, params []byte, depth int) (elsewhere *checkpoint.Error, inParams error) {
	if len(params) > 0 && params[0] == '{' {
		err := rawjson.RawMembers(params, func(key, value []byte) error {
			name, _ := rawjson.String(key)
			if rawjson.Valid(key, 1) != nil {
				return checkpoint.Invalid("params", "a member's name is not valid UTF-8")
			}
			return blameValue(value, cut(name), depth)
		})
		if err != nil {
			return nil, err
		}
	} else if err := rawjson.Valid(params, depth); len(params) > 0 && err != nil {
		return nil, checkpoint.Invalid("params", "%s", err.Error())
	}
	switch err := rawjson.Valid(msg, depth+2); {
	case errors.Is(err, rawjson.ErrDepth):
		return checkpoint.Errorf(checkpoint.KindInvalidRequest, "%s", err.Error()), nil
	case err != nil:
		return checkpoint.Errorf(checkpoint.KindParse, "%s", err.Error()), nil
	}
	return nil, nil
}

func blameValue(value []byte, name string, depth int) error {
	err := rawjson.Valid(value, depth)
	if err == nil {
		return nil
	}
	if errors.Is(err, rawjson.ErrUTF8) && value[0] == '[' && (name == "tags" || name == "types" || name == "preserve_tags") {
		if inner := rawjson.Elements(value, func(i int, v []byte) error {
			return blameValue(v, name+"["+strconv.Itoa(i)+"]", depth)
		}); inner != nil {
			return inner
		}
	}
	return checkpoint.Invalid(name, "%s", err.Error())
}
