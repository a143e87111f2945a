package storage

import "sort"

// ranges are the numbers that were given, as rising spans that do not touch. Creates make
// the last one longer; only imports leave gaps.
type ranges [][2]uint64

func (r ranges) find(n uint64) int {
	return sort.Search(len(r), func(i int) bool { return r[i][1] >= n })
}

func (r ranges) has(n uint64) bool {
	i := r.find(n)
	return i < len(r) && r[i][0] <= n
}

func (r *ranges) add(n uint64) {
	list := *r
	i := list.find(n)
	if i < len(list) && list[i][0] <= n {
		return
	}
	before := i > 0 && list[i-1][1]+1 == n
	after := i < len(list) && list[i][0] == n+1
	switch {
	case before && after:
		list[i-1][1] = list[i][1]
		*r = append(list[:i], list[i+1:]...)
	case before:
		list[i-1][1] = n
	case after:
		list[i][0] = n
	default:
		list = append(list, [2]uint64{})
		copy(list[i+1:], list[i:])
		list[i] = [2]uint64{n, n}
		*r = list
	}
}
