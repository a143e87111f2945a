package rawjson

// Mark is where one member of a compacted text stands: text[Key:KeyEnd] is its name with
// the quotes, text[Value:End] its value. Depth 1 is the outermost object.
type Mark struct {
	Depth, Key, KeyEnd, Value, End int
}

const (
	maxMarked = 2
	maxMarks  = 64
)

// Lenient is Compact that goes on over what is too deep or not UTF-8 and reports the first
// such place as flaw, for one who has to find out whose fault it is. It also marks the
// members of the outermost object and of the objects that are members of it, in the same
// pass; a text with more of them than a message needs gets no marks: walk it.
func Lenient(dst, src []byte, maxDepth int) (out []byte, marks []Mark, flaw, err error) {
	marks = make([]Mark, 0, 16)
	s := scanner{src: src, dst: dst, compact: true, maxDepth: maxDepth, lenient: true, marks: &marks, marked: maxMarked}
	if err := s.document(); err != nil {
		return dst, nil, nil, err
	}
	if s.marked == 0 || len(dst) > 0 {
		marks = nil
	}
	return s.dst, marks, s.flaw, nil
}

func (s *scanner) startMark(depth, from, to int) {
	if len(*s.marks) == maxMarks {
		s.marked = 0
		return
	}
	s.open[depth] = len(*s.marks)
	*s.marks = append(*s.marks, Mark{Depth: depth, Key: from, KeyEnd: to, Value: len(s.dst) + s.i - s.run})
}

func (s *scanner) endMark(depth int) {
	if depth > 0 {
		(*s.marks)[s.open[depth]].End = len(s.dst) + s.i - s.run
	}
}
