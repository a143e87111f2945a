package checkpoint

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// ID names a session, a checkpoint or an annotation: a UUID, 16 bytes in memory and
// the 36-character lower-case form everywhere else.
type ID [16]byte

// NewID returns a version 7 UUID; those made later in one process sort later.
func NewID() ID { return ID(uuid.Must(uuid.NewV7())) }

// ParseID accepts the 36-character lower-case form and nothing else: an id becomes a
// file name, so "urn:uuid:", braces and upper case, which uuid.Parse lets in, are refused.
func ParseID(s string) (ID, error) {
	u, err := uuid.Parse(s)
	if err != nil || len(s) != 36 || strings.ContainsAny(s, "ABCDEF") {
		return ID{}, &Error{Kind: KindInvalidParams, Message: fmt.Sprintf("%.64q is not an id: give a UUID in its 36-character lower-case form", s)}
	}
	return ID(u), nil
}

func (id ID) String() string { return uuid.UUID(id).String() }

// IsZero says that no id is there; encoding/json's omitzero asks it.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders ids by their bytes, which for version 7 is by time.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText writes the 36-character form.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseID.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err == nil {
		*id = parsed
	}
	return err
}
