package kubelets

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// FreePort returns a port that is free on all addresses and on the address of the first node.
func FreePort() (int, error) {
	var errs []error
	for port := 10250; port < 10350; port++ {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", fmt.Sprintf("127.16.0.1:%d", port))
		if err == nil {
			l.Close()
			return port, nil
		}
		errs = append(errs, err)
	}
	return 0, errors.Join(errs...)
}
