package kubelettest

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault answers a request in the place of a kubelet that would have sent answer.
type Fault func(w http.ResponseWriter, r *http.Request, answer []byte)

// Hang never answers.
func Hang(_ http.ResponseWriter, r *http.Request, _ []byte) { <-r.Context().Done() }

// HangInHeader sends half a header and nothing more. Over HTTP/2 it is the same as Hang.
func HangInHeader(w http.ResponseWriter, r *http.Request, answer []byte) {
	conn := hijack(w)
	if conn == nil {
		Hang(w, r, answer)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/pl")
	_, _ = io.Copy(io.Discard, conn) // until the client gives up
}

// HangAfterHeader sends the header and half of the answer and nothing more.
func HangAfterHeader(w http.ResponseWriter, r *http.Request, answer []byte) {
	w.Header().Set("Content-Type", ContentType)
	_, _ = w.Write(answer[:len(answer)/2])
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// Drip sends one byte at each interval.
func Drip(interval time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, answer []byte) {
		w.Header().Set("Content-Type", ContentType)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for i := range answer {
			_, _ = w.Write(answer[i : i+1])
			w.(http.Flusher).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	}
}

// Status answers with a status code and a text.
func Status(code int, text string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) { http.Error(w, text, code) }
}

// Redirect sends the client elsewhere.
func Redirect(to string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	}
}

// Reset ends the connection, or over HTTP/2 the stream, without an answer.
func Reset(w http.ResponseWriter, _ *http.Request, _ []byte) {
	if conn := hijack(w); conn != nil {
		reset(conn)
		return
	}
	panic(http.ErrAbortHandler)
}

// Half sends half of the answer and resets the connection or stream.
func Half(w http.ResponseWriter, _ *http.Request, answer []byte) {
	w.Header().Set("Content-Type", ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = w.Write(answer[:len(answer)/2])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// Flood sends size bytes that are not metrics. If declared is true, it announces the size.
func Flood(size int, declared bool) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Type", ContentType)
		if declared {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		flood(w, size)
	}
}

// FloodHeader sends a header of about size bytes.
func FloodHeader(size int) Fault {
	return func(w http.ResponseWriter, _ *http.Request, answer []byte) {
		w.Header().Set("X-Flood", string(bytes.Repeat([]byte("x"), size)))
		_, _ = w.Write(answer)
	}
}

// EndlessHeader sends a header that never ends. Over HTTP/2 it is the same as Hang.
func EndlessHeader(w http.ResponseWriter, r *http.Request, answer []byte) {
	conn := hijack(w)
	if conn == nil {
		Hang(w, r, answer)
		return
	}
	defer conn.Close()
	_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
	for more := bytes.Repeat([]byte("X-Flood: "+strings.Repeat("x", 1000)+"\r\n"), 16); err == nil; {
		_, err = conn.Write(more)
	}
}

// GzipBomb sends a gzip stream that decompresses to size bytes, whether or not gzip was asked for.
func GzipBomb(size int) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Type", ContentType)
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		flood(z, size)
		z.Close()
	}
}

// Noise sends size random bytes as if they were an answer.
func Noise(seed uint64, size int) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Type", ContentType)
		noise := make([]byte, size)
		for i := range noise {
			noise[i] = byte(mix(seed, uint64(i)))
		}
		_, _ = w.Write(noise)
	}
}

// As sends the right answer with another content type.
func As(contentType string) Fault {
	return func(w http.ResponseWriter, r *http.Request, answer []byte) {
		w.Header().Set("Content-Type", contentType)
		Answer(w, r, answer)
	}
}

func flood(w io.Writer, size int) {
	lines := bytes.Repeat([]byte("flood_total 1\n"), 1024)
	for size > 0 {
		if size < len(lines) {
			lines = lines[len(lines)-size:] // the last line is whole
		}
		n, err := w.Write(lines)
		if err != nil {
			return
		}
		size -= n
	}
}

// hijack takes over the connection of an HTTP/1.1 request; it returns nil for HTTP/2.
func hijack(w http.ResponseWriter) net.Conn {
	h, ok := w.(http.Hijacker)
	if !ok {
		return nil
	}
	conn, _, err := h.Hijack()
	if err != nil {
		return nil
	}
	return conn
}

func reset(conn net.Conn) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	if tcp, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}
