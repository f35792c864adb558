package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// listen answers every connection with one byte, and returns its port.
func listen(address string, said byte) (int32, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return 0, err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(connection, said)
		}
	}()
	return int32(listener.Addr().(*net.TCPAddr).Port), nil
}

// serve lets the client close first, which it does with a reset: no port stays behind in TIME_WAIT.
func serve(connection net.Conn, said byte) {
	defer connection.Close()
	if _, err := connection.Write([]byte{said}); err == nil {
		_, _ = io.Copy(io.Discard, connection)
	}
}

// answers connects again and again until the listener that says this byte is reached.
func answers(ctx context.Context, to string, want byte) error {
	start := time.Now()
	for {
		said, err := ask(to)
		if err == nil && said == want {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(start) > patience {
			return fmt.Errorf("%s did not answer %q within %s: it said %q, %v", to, want, patience, said, err)
		}
		time.Sleep(between(time.Since(start)))
	}
}

// between is the pause until the next connection: short enough to tell a percent of what has passed, and long enough to leave the
// processor to the proxy that is measured.
func between(passed time.Duration) time.Duration {
	return max(500*time.Microsecond, passed/100)
}

func ask(to string) (byte, error) {
	connection, err := net.DialTimeout("tcp", to, 50*time.Millisecond)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	_ = connection.(*net.TCPConn).SetLinger(0)
	_ = connection.SetDeadline(time.Now().Add(time.Second))
	var said [1]byte
	_, err = io.ReadFull(connection, said[:])
	return said[0], err
}
