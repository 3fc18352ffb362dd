// Package page has the files of the page that metrics-server ui serves. They are built from src by `make ui`; the
// result in dist is committed, so that building the server needs no Node.js.
//
// Files is read-only and safe for concurrent use.
package page

import (
	"embed"
	"io/fs"
)

//go:embed dist
var dist embed.FS

// Files are index.html, app.js, app.css, icon.svg and licences.txt.
var Files = sub()

func sub() fs.FS {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // "dist" is a valid path
	}
	return files
}
