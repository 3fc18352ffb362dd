package kubelettest_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"metrics-server/pkg/kubelet/kubelettest"
)

// A simulated kubelet serves the answers of a node, whose true usage is known, until a fault is
// set.
func Example() {
	boot := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	node := kubelettest.NewNode(kubelettest.NodeConfig{
		Boot: boot,
		List: []kubelettest.Pod{{Namespace: "default", Name: "web-0", Seed: 1, Started: []time.Time{boot}}},
	})
	kubelet := &kubelettest.Kubelet{
		Answer: node.Append,
		Now:    func() time.Time { return boot.Add(time.Hour) },
	}
	server, err := kubelettest.Serve(kubelet, kubelettest.ServerConfig{}) // without a certificate: plain HTTP
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	show := func() {
		status, answer, err := get(server, "http")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(status)
		for line := range strings.Lines(answer) {
			if strings.HasPrefix(line, "container_start_time_seconds{") {
				fmt.Print(line)
			}
		}
	}
	show()
	kubelet.SetFault(kubelettest.Status(http.StatusForbidden, "not today"))
	show()
	// Output:
	// 200 OK
	// container_start_time_seconds{container="c0",namespace="default",pod="web-0"} 1.7672256e+09
	// 403 Forbidden
}

// An authority signs the certificate that a kubelet serves. Who does not know the authority refuses
// it.
func ExampleCA() {
	ca := kubelettest.NewCA("cluster")
	config := kubelettest.ServerConfig{Certificate: ca.Server("127.0.0.1")}
	server, err := kubelettest.Serve(&kubelettest.Kubelet{}, config)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	_, _, err = get(server, "https")
	fmt.Println("refused:", err != nil && strings.Contains(err.Error(), "unknown authority"))
	// Output:
	// refused: true
}

// get asks a kubelet for its metrics.
func get(server *kubelettest.Server, scheme string) (status, answer string, err error) {
	url := scheme + "://" + net.JoinHostPort(server.Host(), strconv.Itoa(server.Port())) + "/metrics/resource"
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return "", "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", "", err
	}
	body, err := io.ReadAll(response.Body)
	if closeErr := response.Body.Close(); err == nil {
		err = closeErr
	}
	return response.Status, string(body), err
}
