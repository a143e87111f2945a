package blob

// Check says what is wrong with the bytes of the file that is named sum; nil: nothing.
func Check(sum Sum, stored []byte) error {
	kind, body, err := decode(sum, stored)
	if err == nil && kind == kindList {
		_, err = parseList(body)
	}
	return err
}
