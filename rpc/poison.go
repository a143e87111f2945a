//go:build !race

package rpc

const poison = false
