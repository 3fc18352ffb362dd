package pods

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// The faults in which a pod lies, in the order of Faults. With all other faults it fails.
const (
	Restarts   = "counter reset"
	NotANumber = "NaN"
	WrongType  = "wrong type"
)

// Fault is something that a pod can do wrong.
type Fault struct {
	Name string
	// answer answers one request on c instead of sending the page; it may take until the peer closes
	// c. An error ends c. Nil: the page is sent, and Spec.own lies.
	answer func(c *net.TCPConn, page []byte) error
	// missing reports whether an autoscaler that wants k gets no value of the pod.
	missing func(k Kind) bool
}

// Faults has all faults of a pod.
var Faults = []Fault{
	{"hang", hang, always},
	{"reset", reset, always},
	{"half", half, always},
	{"500", status("500 Internal Server Error"), always},
	{"redirect", status("302 Found\r\nLocation: http://127.0.0.1/"), always},
	{"garbage", garbage, always},
	{"login page", loginPage, always},
	{"huge", huge, always},
	{"huge, declared", hugeDeclared, always},
	{"slow", slow, always},
	{WrongType, nil, always},
	{NotANumber, nil, always},
	{Restarts, nil, func(Kind) bool { return false }},
}

func always(Kind) bool { return true }

// fault returns the fault of that name, or nil.
func fault(name string) *Fault {
	for i := range Faults {
		if Faults[i].Name == name {
			return &Faults[i]
		}
	}
	return nil
}

// restartPeriod is how often a pod with the fault Restarts restarts.
const restartPeriod = 47 * time.Second

// ok is the beginning of an answer, up to its length.
const ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"

func declared(n int) string { return fmt.Sprintf("%sContent-Length: %d\r\n\r\n", ok, n) }

// hang waits until the peer gives up.
func hang(c *net.TCPConn, _ []byte) error {
	_, err := c.Read(make([]byte, 1))
	return err
}

func reset(c *net.TCPConn, _ []byte) error {
	_ = c.SetLinger(0)
	return net.ErrClosed
}

func half(c *net.TCPConn, page []byte) error {
	_, _ = c.Write(append([]byte(declared(len(page))), page[:len(page)/2]...))
	return net.ErrClosed
}

func status(text string) func(*net.TCPConn, []byte) error {
	return func(c *net.TCPConn, _ []byte) error {
		_, err := fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", text)
		return err
	}
}

// garbage is as long as a page and has lines, but nothing else in common with one.
func garbage(c *net.TCPConn, page []byte) error {
	noise := make([]byte, len(page))
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(noise)
	for i := 0; i < len(noise); i += 80 {
		noise[i] = '\n'
	}
	_, err := c.Write(append([]byte(declared(len(noise))), noise...))
	return err
}

func loginPage(c *net.TCPConn, _ []byte) error {
	const page = "<!DOCTYPE html><title>Sign in</title>"
	_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s", len(page), page)
	return err
}

// huge sends a page again and again, up to 1 GiB as far as the peer reads it.
func huge(c *net.TCPConn, page []byte) error {
	_, err := c.Write([]byte(ok + "\r\n"))
	return flood(c, page, err)
}

func hugeDeclared(c *net.TCPConn, page []byte) error {
	_, err := c.Write([]byte(declared(1 << 30)))
	return flood(c, page, err)
}

func flood(c *net.TCPConn, page []byte, err error) error {
	pages := bytes.Repeat(page, 1<<20/len(page)+1)
	for range 1 << 10 {
		if err != nil {
			return err
		}
		_, err = c.Write(pages)
	}
	return net.ErrClosed
}

// slow sends a byte a second.
func slow(c *net.TCPConn, page []byte) error {
	_, err := c.Write([]byte(declared(len(page))))
	for i := 0; err == nil && i < len(page); i++ {
		if _, err = c.Write(page[i : i+1]); err == nil {
			time.Sleep(time.Second)
		}
	}
	return err
}
