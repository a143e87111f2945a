package checkpoint

import (
	"errors"
	"fmt"
)

// Kind is the machine-readable class of an error; the wire sends it as data.kind.
type Kind string

// The kinds of the wire contract.
const (
	KindParse            Kind = "parse_error"
	KindInvalidRequest   Kind = "invalid_request"
	KindMethodNotFound   Kind = "method_not_found"
	KindInvalidParams    Kind = "invalid_params"
	KindInternal         Kind = "internal"
	KindNotFound         Kind = "not_found"
	KindConflict         Kind = "conflict"
	KindInvalidState     Kind = "invalid_state"
	KindCorrupt          Kind = "corrupt"
	KindTooLarge         Kind = "too_large"
	KindPermissionDenied Kind = "permission_denied"
	KindStorage          Kind = "storage"
	KindOverloaded       Kind = "overloaded"
)

// The sentinels. Every *Error of the matching kind satisfies errors.Is with its sentinel,
// on the daemon's side and on the client's.
var (
	ErrInvalidParams    = &Error{Kind: KindInvalidParams, Message: "invalid params"}
	ErrNotFound         = &Error{Kind: KindNotFound, Message: "not found"}
	ErrConflict         = &Error{Kind: KindConflict, Message: "conflict"}
	ErrInvalidState     = &Error{Kind: KindInvalidState, Message: "invalid state"}
	ErrCorrupt          = &Error{Kind: KindCorrupt, Message: "corrupt"}
	ErrTooLarge         = &Error{Kind: KindTooLarge, Message: "too large"}
	ErrPermissionDenied = &Error{Kind: KindPermissionDenied, Message: "permission denied"}
	ErrStorage          = &Error{Kind: KindStorage, Message: "storage failed"}
	ErrOverloaded       = &Error{Kind: KindOverloaded, Message: "overloaded"}
	ErrInternal         = &Error{Kind: KindInternal, Message: "internal error"}
)

// Error is what forge-cpd tells a caller: what is wrong and what to do about it.
type Error struct {
	Kind    Kind
	Message string
	// Field is the param at fault: "tags[1]", "session_id".
	Field string
	// Retry says that the same call can succeed later, unchanged.
	Retry bool
	// Data holds further members of the wire's data object (head_id, previous).
	Data map[string]any
	// Err is the cause. It is for logs and errors.Is; its text is not sent.
	Err error
}

func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches a sentinel of the same kind.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind
}

// Errorf makes an error of a kind. A %w among the arguments becomes its cause.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), Err: errors.Unwrap(err)}
}

// Invalid is an invalid_params error for one param.
func Invalid(field, format string, args ...any) *Error {
	e := Errorf(KindInvalidParams, format, args...)
	e.Field = field
	return e
}
