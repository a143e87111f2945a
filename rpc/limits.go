package rpc

import "time"

// Limits bound what clients may cost. The zero value is not the default: start from
// DefaultLimits.
type Limits struct {
	FrameBytes            int           // one message, envelope included
	StateBytes            int           // a state, as kept
	MetadataBytes         int           // metadata, detail, an auto configuration
	InFlightBytes         int64         // frames and replies held over all connections
	Connections           int           // open at once
	InFlightPerConnection int           // requests not answered yet; beyond it the daemon stops reading
	JSONDepth             int           // levels of arrays and objects in one param
	FrameTimeout          time.Duration // from a frame's first byte to its last
	WriteTimeout          time.Duration // for a peer to take some of what waits for it
	IdleTimeout           time.Duration // with nothing read, written or in flight; 0: none
	QueuedNotifications   int           // bytes of notifications that a peer has not read

	MessageBytes int // a checkpoint's message, an annotation's note
	NameBytes    int // a session's name
	KeyBytes     int // a session's key
	TagCount     int // tags of one checkpoint
	TagBytes     int // one tag
	LabelCount   int // labels of one session
	LabelBytes   int // a label's name or value
}

// DefaultLimits are those of the configuration with nothing in it. The limits on texts keep
// one summary small: a page of 1,000 of them has to fit into a frame.
func DefaultLimits() Limits {
	return Limits{
		FrameBytes: 32 << 20, StateBytes: 16 << 20, MetadataBytes: 64 << 10, InFlightBytes: 128 << 20,
		Connections: 1024, InFlightPerConnection: 256, JSONDepth: 1000,
		FrameTimeout: 30 * time.Second, WriteTimeout: 10 * time.Second, QueuedNotifications: 1 << 20,
		MessageBytes: 16 << 10, NameBytes: 1 << 10, KeyBytes: 512, TagCount: 64, TagBytes: 256,
		LabelCount: 64, LabelBytes: 1 << 10,
	}
}

const (
	smallFrame   = 64 << 10 // up to here a frame costs one connection's place, not the shared budget while it grows
	replyBacklog = 1 << 20  // bytes not yet taken by a peer, over which its next large read waits
	largeReads   = 2        // of one connection that run at a time
	stallTime    = time.Second
)
