package checkpoint

import (
	"errors"
	"strings"
	"testing"
)

func TestParseIDTakesOneFormOnly(t *testing.T) {
	good := NewID().String()
	if id, err := ParseID(good); err != nil || id.String() != good {
		t.Fatalf("ParseID(%q) = %v, %v", good, id, err)
	}
	for _, bad := range []string{
		"", "..", "../" + good, strings.ToUpper(good), "{" + good + "}", "urn:uuid:" + good,
		strings.ReplaceAll(good, "-", ""), good + "\n", good[:35], good + "0",
	} {
		if _, err := ParseID(bad); !errors.Is(err, ErrInvalidParams) {
			t.Errorf("ParseID(%q) = %v, want invalid params", bad, err)
		}
	}
}

func TestErrorsAreToldApartByKind(t *testing.T) {
	cause := errors.New("disk on fire")
	err := error(Errorf(KindStorage, "writing: %w", cause))
	if !errors.Is(err, ErrStorage) || errors.Is(err, ErrCorrupt) || !errors.Is(err, cause) {
		t.Fatalf("%v: wrong kind or lost cause", err)
	}
	if got := Invalid("tags[1]", "must be a string").Error(); got != "tags[1]: must be a string" {
		t.Fatalf("got %q", got)
	}
}
