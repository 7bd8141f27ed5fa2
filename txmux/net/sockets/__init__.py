"""Plain sockets served by an epoll object of their own, for less than the reactor's machinery costs."""
