// peer: an HTTP client and server that are built without cgo, so that no C library is in them.
//
//	peer get URL       print the body
//	peer serve ADDR    answer every request
//	peer resolve NAME  print its IPv4 addresses, by Go's own resolver
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func get(url string) {
	answer, err := http.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		log.Fatal(err)
	}
}

func serve(address string) {
	http.HandleFunc("/", func(to http.ResponseWriter, request *http.Request) {
		fmt.Fprintln(to, "served", request.URL.Path)
	})
	log.Fatal(http.ListenAndServe(address, nil))
}

func resolve(name string) {
	addresses, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip4", name)
	if err != nil {
		log.Fatal(err)
	}
	for _, address := range addresses {
		fmt.Println(address)
	}
}

func main() {
	switch os.Args[1] {
	case "get":
		get(os.Args[2])
	case "serve":
		serve(os.Args[2])
	case "resolve":
		resolve(os.Args[2])
	}
}
