// Stands for the browser's document, which modules of the page use when they are imported. Import it before them.
Object.assign(globalThis, { document: new EventTarget() });
