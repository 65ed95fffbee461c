// Fan-out with Go's net/http: a goroutine and a buffered channel for each client.
//
// It takes the requests of benchmarks/load.py. With -batch a client's goroutine writes all that waits in its channel
// before it flushes; without, it flushes after each message.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// Messages that may wait for one client. A publisher waits for a client whose channel is full, so nothing is lost.
const waiting = 64

const clockMonotonic = 1

type client struct {
	messages chan []byte
	gone     <-chan struct{}
}

type hub struct {
	lock    sync.RWMutex
	clients map[*client]struct{}
	named   map[string]*client
	batch   bool
}

func (h *hub) add(name string, c *client) {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.clients[c] = struct{}{}
	if name != "" {
		h.named[name] = c
	}
}

func (h *hub) remove(name string, c *client) {
	h.lock.Lock()
	defer h.lock.Unlock()
	delete(h.clients, c)
	if h.named[name] == c {
		delete(h.named, name)
	}
}

func (c *client) put(event []byte) {
	select {
	case c.messages <- event:
	case <-c.gone:
	}
}

func (h *hub) broadcast(text string) {
	event := []byte("data: " + text + "\n\n")
	h.lock.RLock()
	defer h.lock.RUnlock()
	for c := range h.clients {
		c.put(event)
	}
}

func (h *hub) send(name string, text string) {
	event := []byte("data: " + text + "\n\n")
	h.lock.RLock()
	defer h.lock.RUnlock()
	if c := h.named[name]; c != nil {
		c.put(event)
	}
}

// events serves one stream.
func (h *hub) events(w http.ResponseWriter, r *http.Request) {
	flusher := w.(http.Flusher)
	name := r.URL.Query().Get("client_id")
	c := &client{messages: make(chan []byte, waiting), gone: r.Context().Done()}
	h.add(name, c)
	defer h.remove(name, c)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	io.WriteString(w, ": ok\n\n")
	flusher.Flush()
	for {
		select {
		case event := <-c.messages:
			w.Write(event)
			for more := h.batch; more; {
				select {
				case event := <-c.messages:
					w.Write(event)
				default:
					more = false
				}
			}
			flusher.Flush()
		case <-c.gone:
			return
		}
	}
}

var base, anchor = clock(), time.Now()

// clock reads the clock that Python calls time.monotonic().
func clock() float64 {
	var now syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	return float64(now.Sec) + float64(now.Nsec)/1e9
}

func monotonic() float64 {
	return base + time.Since(anchor).Seconds()
}

func number(r *http.Request, name string) float64 {
	value, _ := strconv.ParseFloat(r.URL.Query().Get(name), 64)
	return value
}

func text(number string, when float64, size int) string {
	beginning := fmt.Sprintf("%s %.6f ", number, when)
	return beginning + strings.Repeat("x", max(0, size-len(beginning)))
}

func max(a, b int) int {
	if a > b {
		return a
	}
	return b
}

// answer makes a handler of a load: it sends, and then says when it began.
func answer(send func(r *http.Request, size int)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		started := monotonic()
		send(r, int(number(r, "size")))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"started": %.6f}`, started)
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8000", "the address to listen on")
	batch := flag.Bool("batch", false, "flush once for all that waits")
	flag.Parse()
	h := &hub{clients: map[*client]struct{}{}, named: map[string]*client{}, batch: *batch}
	count := 0
	next := func() string {
		count++
		return strconv.Itoa(count)
	}
	own := map[string]int{}
	http.HandleFunc("/events", h.events)
	http.HandleFunc("/ready", answer(func(*http.Request, int) {}))
	http.HandleFunc("/burst", answer(func(r *http.Request, size int) {
		for n := int(number(r, "n")); n > 0; n-- {
			h.broadcast(text(next(), monotonic(), size))
		}
	}))
	http.HandleFunc("/rate", answer(func(r *http.Request, size int) {
		started, rate, seconds := monotonic(), number(r, "per_second"), number(r, "seconds")
		for n := 0; n < int(rate*seconds) && monotonic() < started+seconds*1.5; n++ {
			due := started + float64(n)/rate
			time.Sleep(time.Duration((due - monotonic()) * 1e9))
			h.broadcast(text(next(), due, size))
		}
	}))
	http.HandleFunc("/each", answer(func(r *http.Request, size int) {
		choose := rand.New(rand.NewSource(1))
		for n := int(number(r, "n")); n > 0; n-- {
			name := strconv.Itoa(choose.Intn(int(number(r, "clients"))))
			own[name]++
			h.send(name, text("@"+strconv.Itoa(own[name]), monotonic(), size))
		}
	}))
	log.Fatal(http.ListenAndServe(*listen, nil))
}
