package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// hostile measures what an honest client feels beside some that mean no good: 40 that ask
// for 1.6 GB each and read nothing, 200 that send a byte a second, one that announces
// frames of 4 GiB, and one that hangs up in mid-frame.
func (r *report) hostile(root string, rounds int) error {
	dir, err := os.MkdirTemp(root, "hostile")
	if err != nil {
		return err
	}
	p, err := openConfigured(dir, "")
	if err != nil {
		return err
	}
	defer p.close()
	s := p.(*daemon)
	w, err := s.conn(0)
	if err != nil {
		return err
	}
	var receipt struct {
		Result struct {
			ID string `json:"checkpoint_id"`
		}
	}
	line, err := w.create(document(8<<20, 1))
	if err == nil {
		err = json.Unmarshal(line, &receipt)
	}
	if err != nil {
		return err
	}
	get := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"checkpoint.get","params":{"checkpoint_id":%q}}`+"\n", receipt.Result.ID)
	honest := func(n int) (float64, error) {
		doc := document(1024, 1)
		ms := make([]float64, n)
		for i := range ms {
			t := time.Now()
			if _, err := w.create(doc); err != nil {
				return 0, err
			}
			ms[i] = float64(time.Since(t)) / 1e6
		}
		slices.Sort(ms)
		return ms[n*99/100], nil
	}
	if _, err := honest(100); err != nil {
		return err
	}
	alone, err := honest(300 * rounds)
	if err != nil {
		return err
	}
	stop, wg := make(chan struct{}), sync.WaitGroup{}
	attack := func(pause time.Duration, say func(net.Conn) error) {
		wg.Go(func() {
			for {
				if c, err := net.Dial("unix", s.sock); err == nil {
					for err == nil { // until it is thrown out
						err = say(c)
						select {
						case <-stop:
							err = net.ErrClosed
						case <-time.After(pause):
						}
					}
					c.Close()
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	gets, junk := []byte(strings.Repeat(get, 200)), bytes.Repeat([]byte("x"), 64<<10)
	write := func(b []byte) func(net.Conn) error {
		return func(c net.Conn) error {
			if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			_, err := c.Write(b)
			return err
		}
	}
	for range 40 {
		attack(time.Second, write(gets))
	}
	for range 200 {
		attack(time.Second, write([]byte("{")))
	}
	attack(5*time.Millisecond, write(append([]byte("Content-Length: 4294967296\r\n\r\n"), junk...)))
	attack(5*time.Millisecond, func(c net.Conn) error {
		if err := write([]byte(get[:40]))(c); err != nil {
			return err
		}
		return net.ErrClosed // hang up
	})
	beside, err := honest(300 * rounds)
	close(stop)
	wg.Wait()
	if err != nil {
		return err
	}
	r.goal("p99 of a 1 KB put beside hostile clients, less that alone, ms", 50, false, beside-alone,
		fmt.Sprintf("%.2f ms, alone %.2f ms", beside, alone))
	return nil
}
