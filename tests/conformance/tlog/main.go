// Reads exports with other people's code: signed notes and tiles with golang.org/x/mod/sumdb (the Go checksum database's
// own), cosignatures with transparency-dev/formats. Every entry, tile, proof and checkpoint of each folder is checked.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

var passed, failed int

func check(name string, err error) bool {
	if err != nil {
		failed++
		fmt.Printf("FAIL %s: %v\n", name, err)
		return false
	}
	passed++
	fmt.Printf("pass %s\n", name)
	return true
}

// files reads tiles where C2SP tlog-tiles has them: without the height in the path.
type files struct{ dir string }

func (f files) Height() int { return height }
func (f files) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(f.dir, path))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}
func (f files) SaveTiles([]tlog.Tile, [][]byte) {}

type checkpoint struct {
	origin string
	tree   tlog.Tree
}

func parse(text string) (checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return checkpoint{}, fmt.Errorf("%d lines", len(lines))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return checkpoint{}, err
	}
	hash, err := tlog.ParseHash(lines[2])
	return checkpoint{lines[0], tlog.Tree{N: size, Hash: hash}}, err
}

// keys by role of each participant's newest statement.
func statements(dir string) (map[string]map[string][]byte, error) {
	data, err := os.ReadFile(filepath.Join(dir, "statements.json"))
	if err != nil {
		return nil, err
	}
	var chains map[string][]string
	if err := json.Unmarshal(data, &chains); err != nil {
		return nil, err
	}
	all := map[string]map[string][]byte{}
	for did, chain := range chains {
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(chain[len(chain)-1], ".")[1])
		if err != nil {
			return nil, err
		}
		var statement struct{ Keys map[string]string }
		if err := json.Unmarshal(payload, &statement); err != nil {
			return nil, err
		}
		all[did] = map[string][]byte{}
		for role, key := range statement.Keys {
			if all[did][role], err = base64.RawURLEncoding.DecodeString(key); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func folder(dir string) {
	name := filepath.Base(filepath.Dir(dir))
	data, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if !check(name+": the checkpoint is there", err) {
		return
	}
	keys, err := statements(dir)
	if !check(name+": the statements are read", err) {
		return
	}
	origin := strings.SplitN(string(data), "\n", 2)[0]
	did := strings.SplitN(origin, "/log/", 2)[0]
	vkey, err := note.NewEd25519VerifierKey(origin, keys[did]["log"])
	check(name+": the log's key is a verifier key", err)
	verifier, err := note.NewVerifier(vkey)
	if !check(name+": …that x/mod takes", err) {
		return
	}
	signed, err := note.Open(data, note.VerifierList(verifier))
	if !check(name+": x/mod opens the checkpoint", err) {
		return
	}
	head, err := parse(signed.Text)
	if !check(name+": it has an origin, a size and a root", err) {
		return
	}

	reader := tlog.TileHashReader(head.tree, files{dir})
	root, err := tlog.TreeHash(head.tree.N, reader)
	if err == nil && root != head.tree.Hash {
		err = fmt.Errorf("the tiles make %v", root)
	}
	check(fmt.Sprintf("%s: x/mod makes the root from the tiles of %d entries", name, head.tree.N), err)
	check(name+": every entry is the leaf that the tiles say", entries(dir, head.tree, reader))
	check(name+": x/mod takes every receipt's proof", proofs(dir, head, verifier))
	count, err := cosignatures(dir, head, reader, verifier, keys)
	check(fmt.Sprintf("%s: transparency-dev takes %d cosignatures, each of a beginning of the log", name, count), err)
}

func entries(dir string, tree tlog.Tree, reader tlog.HashReader) error {
	for start := int64(0); start < tree.N; start += 256 {
		width := min(tree.N-start, 256)
		tile := tlog.Tile{H: height, L: -1, N: start / 256, W: int(width)}
		data, err := os.ReadFile(filepath.Join(dir, strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1)))
		if err != nil {
			return err
		}
		for at := start; at < start+width; at++ {
			length := int(binary.BigEndian.Uint16(data))
			entry := data[2 : 2+length]
			data = data[2+length:]
			stored, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, at)})
			if err != nil {
				return err
			}
			if tlog.RecordHash(entry) != stored[0] {
				return fmt.Errorf("entry %d", at)
			}
		}
		if len(data) > 0 {
			return fmt.Errorf("%d bytes too many", len(data))
		}
	}
	return nil
}

func lines(path string) ([][]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<24)
	var all [][]byte
	for scanner.Scan() {
		all = append(all, bytes.Clone(scanner.Bytes()))
	}
	return all, scanner.Err()
}

func proofs(dir string, head checkpoint, verifier note.Verifier) error {
	receipts, err := lines(filepath.Join(dir, "receipts.jsonl"))
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(head.tree, files{dir})
	for _, line := range receipts {
		var receipt struct {
			Index int64
			Proof string
		}
		if err := json.Unmarshal(line, &receipt); err != nil {
			return err
		}
		top, signed, _ := strings.Cut(receipt.Proof, "\n\n")
		opened, err := note.Open([]byte(signed), note.VerifierList(verifier))
		if err != nil {
			return err
		}
		under, err := parse(opened.Text)
		if err != nil {
			return err
		}
		var path tlog.RecordProof
		for _, text := range strings.Split(top, "\n")[2:] {
			hash, err := tlog.ParseHash(text)
			if err != nil {
				return err
			}
			path = append(path, hash)
		}
		leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, receipt.Index)})
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(path, under.tree.N, under.tree.Hash, receipt.Index, leaf[0]); err != nil {
			return fmt.Errorf("receipt at %d: %w", receipt.Index, err)
		}
	}
	if len(receipts) == 0 {
		return fmt.Errorf("no receipts")
	}
	return nil
}

func cosignatures(dir string, head checkpoint, reader tlog.HashReader, log note.Verifier, keys map[string]map[string][]byte) (int, error) {
	checkpoints, err := lines(filepath.Join(dir, "checkpoints.jsonl"))
	if err != nil {
		return 0, err
	}
	verifiers := []note.Verifier{log}
	for did, roles := range keys {
		vkey, err := note.NewEd25519VerifierKey(did+"/witness", roles["cosigner"])
		if err != nil {
			return 0, err
		}
		witness, err := fnote.NewVerifierForCosignatureV1(vkey)
		if err != nil {
			return 0, err
		}
		verifiers = append(verifiers, witness)
	}
	count := 0
	for _, line := range checkpoints {
		var pair []json.RawMessage
		var signed string
		if err := json.Unmarshal(line, &pair); err != nil {
			return count, err
		}
		if err := json.Unmarshal(pair[1], &signed); err != nil {
			return count, err
		}
		opened, err := note.Open([]byte(signed), note.VerifierList(verifiers...))
		if err != nil {
			return count, err
		}
		if len(opened.UnverifiedSigs) > 0 || len(opened.Sigs) < 2 {
			return count, fmt.Errorf("%d verified, %d not: %q", len(opened.Sigs), len(opened.UnverifiedSigs), signed)
		}
		count += len(opened.Sigs) - 1
		old, err := parse(opened.Text)
		if err != nil {
			return count, err
		}
		proof, err := tlog.ProveTree(head.tree.N, old.tree.N, reader)
		if err != nil {
			return count, err
		}
		if err := tlog.CheckTree(proof, head.tree.N, head.tree.Hash, old.tree.N, old.tree.Hash); err != nil {
			return count, err
		}
	}
	if count == 0 {
		return 0, fmt.Errorf("none")
	}
	return count, nil
}

func main() {
	for _, dir := range os.Args[1:] {
		folder(dir)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}
