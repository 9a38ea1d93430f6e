package pubsub

import (
	"encoding/binary"
	"errors"
	"time"
)

// What the first byte of a frame says. A node ignores kinds that it does not know: a newer one may send them.
const (
	kindMessage byte = 1
	kindBeat    byte = 2
)

// frameHead is the size of a frame without its payload.
const frameHead = 1 + 8 + 8 + 8

// frame is what travels. In bytes: kind, stream, seq and quiet (in microseconds), the last three big-endian, payload.
type frame struct {
	kind   byte
	stream uint64        // who sends: a publisher's life on one subject
	seq    uint64        // of the message, counted from 1; of a beat, that of the last message
	quiet  time.Duration // between the message before and this one; of a beat, since the last message
	// payload is what was published; empty in a beat.
	payload []byte
}

func (f frame) encode() []byte {
	b := make([]byte, 0, frameHead+len(f.payload))
	b = append(b, f.kind)
	b = binary.BigEndian.AppendUint64(b, f.stream)
	b = binary.BigEndian.AppendUint64(b, f.seq)
	b = binary.BigEndian.AppendUint64(b, uint64(max(0, f.quiet.Microseconds())))
	return append(b, f.payload...)
}

var errFrame = errors.New("not a frame of this version")

// parseFrame reads a frame. Its payload is a part of data.
func parseFrame(data []byte) (frame, error) {
	if len(data) < frameHead || len(data) > frameHead+MaxPayload || data[0] != kindMessage && data[0] != kindBeat {
		return frame{}, errFrame
	}
	quiet := binary.BigEndian.Uint64(data[17:])
	f := frame{
		kind: data[0], stream: binary.BigEndian.Uint64(data[1:]), seq: binary.BigEndian.Uint64(data[9:]),
		quiet: time.Duration(min(quiet, 1<<52)) * time.Microsecond, payload: data[frameHead:],
	}
	if f.seq == 0 || f.kind == kindBeat && len(f.payload) > 0 {
		return frame{}, errFrame
	}
	return f, nil
}
