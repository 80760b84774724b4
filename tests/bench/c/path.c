/* path.c - what a connection carries, once it is made: round trips, and one stream
 *
 * The first byte says what the server shall do; see server.c. */
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe.h"

#define MESSAGE_BYTES 64
#define CHUNK_BYTES (1 << 17)
#define MIB (1 << 20)

static void send_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);

        if (sent < 0)
            fail("send");
        bytes += sent;
        n -= (size_t)sent;
    }
}

static void receive_all(int fd, char *bytes, size_t n)
{
    ssize_t received = recv(fd, bytes, n, MSG_WAITALL);

    if (received < 0 || (size_t)received != n)
        fail("recv");
}

static int open_for(const char *purpose)
{
    int one = 1;
    int fd = open_connection();

    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
        fail("setsockopt");
    send_all(fd, purpose, 1);
    return fd;
}

void measure_round_trip(size_t n)
{
    char message[MESSAGE_BYTES] = {0};
    struct times times = make_times(n);
    int fd = open_for("e");

    for (size_t i = 0; i < n + WARM_UP; i++) {
        uint64_t begin = now_ns();

        send_all(fd, message, sizeof(message));
        receive_all(fd, message, sizeof(message));
        if (i >= WARM_UP)
            times.ns[i - WARM_UP] = now_ns() - begin;
    }
    reset_connection(fd);
    say_times(times);
}

void measure_stream(size_t mib)
{
    static char chunk[CHUNK_BYTES];
    char done;
    uint64_t begin;
    int fd = open_for("s");

    begin = now_ns();
    for (size_t i = 0; i < mib * (MIB / CHUNK_BYTES); i++)
        send_all(fd, chunk, sizeof(chunk));
    if (shutdown(fd, SHUT_WR) < 0)
        fail("shutdown");
    receive_all(fd, &done, 1);
    say_rate(mib, now_ns() - begin);
    reset_connection(fd);
}
