// Command rbd stands for rbd where only the installer is tested: a payload of
// this alone is copied in a moment.
package main

import "fmt"

func main() { fmt.Println("rbd of the test") }
