// Package near measures how much names differ, for errors that ask "did you mean ...?". It is pure.
package near

// Distance is the number of bytes to insert, delete or replace to turn a into b. It takes len(a)*len(b) steps:
// callers bound both.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// maxNearest is the length of the longest names that Nearest compares, in bytes.
const maxNearest = 256

// Nearest returns the name that is most similar to s, or "" if none is similar.
func Nearest(s string, names []string) string {
	best, least := "", 1+min(len(s)/3, 3)
	for _, name := range names {
		longer := max(len(s), len(name))
		if longer > maxNearest || longer-min(len(s), len(name)) >= least { // the distance is at least this difference
			continue
		}
		if d := Distance(s, name); d < least {
			best, least = name, d
		}
	}
	return best
}
