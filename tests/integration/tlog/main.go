// Checks a signed trail with golang.org/x/mod/sumdb alone: checkpoints, tiles, inclusion,
// consistency, and proof files.  Usage: main DIR VKEY OLD-CHECKPOINT LINES [LINE PROOF]...
package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(path string) []byte {
	data, err := os.ReadFile(path)
	must(err)
	return data
}

func checkpoint(message []byte, keys note.Verifiers) tlog.Tree {
	n, err := note.Open(message, keys)
	must(err)
	lines := strings.Split(n.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	hash, err := tlog.ParseHash(lines[2])
	must(err)
	return tlog.Tree{N: size, Hash: hash}
}

// The tiles of the trail: as Go names them, but for the height.
type tiles struct{ dir string }

func (t tiles) Height() int { return 8 }

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(t.dir, path))
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

func proofFile(text []byte, keys note.Verifiers) (int64, tlog.RecordProof, tlog.Tree) {
	head, rest, found := bytes.Cut(text, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !found || lines[0] != "c2sp.org/tlog-proof@v1" {
		must(fmt.Errorf("not a proof: %q", lines[0]))
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	must(err)
	var proof tlog.RecordProof
	for _, line := range lines[2:] {
		bytes, err := base64.StdEncoding.DecodeString(line)
		must(err)
		var h tlog.Hash
		copy(h[:], bytes)
		proof = append(proof, h)
	}
	return index, proof, checkpoint(rest, keys)
}

func main() {
	dir, vkey := os.Args[1], os.Args[2]
	verifier, err := note.NewVerifier(vkey)
	must(err)
	keys := note.VerifierList(verifier)
	tree := checkpoint(read(filepath.Join(dir, "checkpoint")), keys)
	old := checkpoint(read(os.Args[3]), keys)
	reader := tlog.TileHashReader(tree, tiles{dir})

	lines := bytes.Split(bytes.TrimSuffix(read(os.Args[4]), []byte("\n")), []byte("\n"))
	if int64(len(lines)) != tree.N {
		must(fmt.Errorf("%d lines, the tree has %d", len(lines), tree.N))
	}
	for i, line := range lines {
		proof, err := tlog.ProveRecord(tree.N, int64(i), reader)
		must(err)
		must(tlog.CheckRecord(proof, tree.N, tree.Hash, int64(i), tlog.RecordHash(line)))
	}
	consistency, err := tlog.ProveTree(tree.N, old.N, reader)
	must(err)
	must(tlog.CheckTree(consistency, tree.N, tree.Hash, old.N, old.Hash))

	for i := 5; i+1 < len(os.Args); i += 2 {
		line := bytes.TrimSuffix(read(os.Args[i]), []byte("\n"))
		index, proof, signed := proofFile(read(os.Args[i+1]), keys)
		must(tlog.CheckRecord(proof, signed.N, signed.Hash, index, tlog.RecordHash(line)))
	}
	fmt.Printf("checkpoint %d, lines %d, old %d, proofs %d\n", tree.N, len(lines), old.N, (len(os.Args)-5)/2)
}
