/* Daytime (RFC 867) and echo (RFC 862) in one thread: a solution of the exercises, in C.
 *
 * Compile it with `cc -o server server.c`. Run it with `./server`, or with two addresses:
 * `./server 127.0.0.1:0 127.0.0.1:0`. The exercises are in src/guide/exercises.md. A number in
 * brackets is the rung that needs the line.
 * Left out: a pause in accepting while no descriptor is free, and limits for idle clients. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { DAYTIME, ECHO, LISTENERS, MAX = 4096, LINGER_MS = 2000 };

struct connection {
    int service, eof_received, eof_sent;
    long deadline;         /* A daytime client has closed its side by then. */
    size_t start, end;     /* The bytes from `start` to `end` are unsent. */
    char bytes[16 * 1024]; /* Bounds the unsent bytes of a client that does not read. [echo 7] */
};

/* The listeners are first. A connection has the same index in both arrays. */
static struct pollfd fds[MAX];
static struct connection *connections[MAX];
static int count = LISTENERS;

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static int is_retry(void) {
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Reads once and writes once. Returns whether the connection is to be closed. */
static int run(int fd, short events, struct connection *c) {
    if (events & ~POLLOUT && c->start == c->end) {
        ssize_t got = recv(fd, c->bytes, sizeof c->bytes, 0);
        if (got < 0 && !is_retry()) return 1; /* Ends this connection and no other. [echo 8] */
        if (got == 0) c->eof_received = 1;
        if (got > 0 && c->service == ECHO) c->start = 0, c->end = got;
    }
    if (events && c->start < c->end) {
        /* `send` takes as much as fits; the rest stays in the buffer. [echo 5] */
        ssize_t sent = send(fd, c->bytes + c->start, c->end - c->start, 0);
        if (sent < 0 && !is_retry()) return 1;
        if (sent > 0) c->start += sent;
    }
    /* The last byte first, then EOF. [echo 6] A daytime server has nothing more to send. */
    if (c->start == c->end && !c->eof_sent && (c->eof_received || c->service == DAYTIME)) {
        if (shutdown(fd, SHUT_WR) < 0) return 1;
        c->eof_sent = 1;
    }
    /* Closing before the client's EOF can destroy the line on its way. [daytime 3] */
    return (c->eof_received && c->eof_sent) || (c->service == DAYTIME && c->deadline <= now());
}

static void accept_one(int service) {
    int fd = accept(fds[service].fd, NULL, NULL);
    if (fd < 0) return; /* This client has gone. The next turn accepts the next one. */
    struct connection *c = calloc(1, sizeof *c);
    if (!c || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) perror("server"), exit(1);
    c->service = service;
    c->deadline = now() + LINGER_MS;
    if (service == DAYTIME) {
        time_t seconds = time(NULL);
        c->end = strftime(c->bytes, sizeof c->bytes, "%a %b %e %H:%M:%S %Y\r\n",
                          localtime(&seconds));
    }
    fds[count].fd = fd;
    connections[count++] = c;
}

static void turn(void) {
    long timeout = -1;
    for (int i = LISTENERS; i < count; i++) {
        struct connection *c = connections[i];
        /* Unsent bytes wait for space, and the client is not read. [echo 7] */
        fds[i].events = c->start < c->end ? POLLOUT : POLLIN;
        long rest = c->deadline > now() ? c->deadline - now() : 0;
        if (c->service == DAYTIME && (timeout < 0 || rest < timeout)) timeout = rest;
    }
    for (int i = 0; i < LISTENERS; i++) fds[i].events = count < MAX ? POLLIN : 0;
    if (poll(fds, count, timeout) < 0) return; /* EINTR: a signal ended the wait. */
    /* From the last to the first, because the last one moves to the place of a closed one. */
    for (int i = count - 1; i >= LISTENERS; i--) {
        if (!run(fds[i].fd, fds[i].revents, connections[i])) continue;
        close(fds[i].fd);
        free(connections[i]);
        fds[i] = fds[--count];
        connections[i] = connections[count];
    }
    for (int i = 0; i < LISTENERS; i++)
        if (fds[i].revents && count < MAX) accept_one(i);
}

static void listen_on(int service, const char *address) {
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t size = sizeof addr;
    char ip[16];
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (sscanf(address, "%15[0-9.]:%hu", ip, &addr.sin_port) != 2) errno = EINVAL, fd = -1;
    addr.sin_port = htons(addr.sin_port);
    if (fd < 0 || inet_pton(AF_INET, ip, &addr.sin_addr) != 1 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&addr, size) < 0 || listen(fd, 1024) < 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || getsockname(fd, (struct sockaddr *)&addr, &size) < 0)
        perror(address), exit(1);
    fds[service].fd = fd;
    printf("%s is listening on %s:%d\n", service == ECHO ? "echo" : "daytime", ip,
           ntohs(addr.sin_port));
    fflush(stdout);
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN); /* A write to a client that has gone is an error, not a signal. */
    listen_on(DAYTIME, argc > 1 ? argv[1] : "127.0.0.1:9999");
    listen_on(ECHO, argc > 2 ? argv[2] : "127.0.0.1:12345");
    for (;;) turn();
}
