"""A bundle behind HTTP: routes, the states of users, the page. No Ray: that is `workers.serve`."""
