package rpc

// Discover is the OpenRPC document of the method table.
func Discover() (RawResult, error) {
	names := []string{}
	for _, m := range methods {
		names = append(names, m.name)
	}
	b, err := marshal(map[string]any{"openrpc": "1.3.2", "methods": names})
	return b, err
}
