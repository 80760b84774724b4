/* server.c - the servers: they act only when they are called
 *
 *   echo    sends back what it gets; closes at end of file
 *   greet   sends "hello" and end of file at once; reads until the client's end of file
 *   reset   resets every connection that it has accepted
 *   unix    as echo; unix-NAME  as NAME
 *   udp-echo  sends back each datagram
 *
 * Their fds are kept out of the way of the sequence's own, which shows fd numbers. */
#include "differ.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define N_CONNECTIONS 64
#define SERVER_FD_MIN 500

struct connection {
    int fd;
    bool echoes;
};

static struct connection connections[N_CONNECTIONS];
static int n_connections;

static void welcome(const struct place *place, int fd)
{
    static const struct linger at_once = {.l_onoff = 1};
    bool greets = strstr(place->name, "greet") != NULL;

    if (strncmp(place->name, "reset", 5) == 0 || n_connections == N_CONNECTIONS) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        close(fd);
        return;
    }
    if (greets) {
        send(fd, "hello", 5, MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR);
    }
    connections[n_connections++] = (struct connection){.fd = fd, .echoes = !greets};
}

static bool answer_from(const struct place *place)
{
    char data[256];
    struct sockaddr_storage from;
    socklen_t length = sizeof(from);
    ssize_t n =
        recvfrom(place->fd, data, sizeof(data), MSG_DONTWAIT, (struct sockaddr *)&from, &length);

    if (n < 0)
        return errno != EAGAIN; /* an error of what was sent earlier */
    sendto(place->fd, data, (size_t)n, MSG_DONTWAIT, (struct sockaddr *)&from, length);
    return true;
}

static bool accept_from(const struct place *place)
{
    int low = accept4(place->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int fd;

    if (low < 0)
        return false;
    fd = must("F_DUPFD", fcntl(low, F_DUPFD_CLOEXEC, SERVER_FD_MIN));
    close(low);
    welcome(place, fd);
    return true;
}

/* Return: whether the connection is still there. */
static bool attend(struct connection *connection)
{
    char data[256];
    ssize_t n = recv(connection->fd, data, sizeof(data), MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN)
        return true;
    if (n <= 0) {
        close(connection->fd);
        return false;
    }
    if (connection->echoes)
        send(connection->fd, data, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    return true;
}

/* serve - do all that there is to do now */
void serve(void)
{
    struct pollfd polled[N_PLACES + N_CONNECTIONS];

    for (;;) {
        nfds_t n = 0;

        for (int i = 0; i < n_places; i++)
            polled[n++] = (struct pollfd){.fd = places[i].fd, .events = POLLIN};
        for (int i = 0; i < n_connections; i++)
            polled[n++] = (struct pollfd){.fd = connections[i].fd, .events = POLLIN};
        if (poll(polled, n, 0) <= 0)
            return;
        for (int i = n_connections; i-- > 0;)
            if (polled[n_places + i].revents != 0 && !attend(&connections[i]))
                connections[i] = connections[--n_connections];
        for (int i = 0; i < n_places; i++)
            while (
                polled[i].revents != 0 &&
                (places[i].type == SOCK_DGRAM ? answer_from(&places[i]) : accept_from(&places[i])))
                continue;
    }
}

/* servers_drain - refuse what the last sequence has left behind */
void servers_drain(void)
{
    for (int i = 0; i < n_places; i++) {
        int fd;

        if (places[i].fd < 0)
            continue;
        if (places[i].type == SOCK_DGRAM) {
            char nothing;

            while (recv(places[i].fd, &nothing, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN)
                continue;
            continue;
        }
        while ((fd = accept4(places[i].fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
            close(fd);
    }
}
