"""One module a page: each draws, and asks `siftune.app.web.queries` and the library for what it draws."""
