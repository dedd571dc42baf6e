"""One module a page: each draws, and asks `app.queries` and the library for what it draws."""
