// Generate writes docs/api.md from what rpc.discover returns. Run "go generate ./rpc".
package main

import (
	"log"
	"os"
)

func main() {
	text, err := page()
	if err == nil {
		err = os.WriteFile("../docs/api.md", text, 0o644)
	}
	if err != nil {
		log.Fatal(err)
	}
}
