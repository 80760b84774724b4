/* ring.c - ring HOST PORT: connect by io_uring, or by connect() where there is none, as liburing's users do */
#include <liburing.h>

#include "say.h"

static int dial_by_ring(struct io_uring *ring, int fd, const struct address *address)
{
    struct io_uring_cqe *done;
    int result;

    io_uring_prep_connect(io_uring_get_sqe(ring), fd, sockaddr_of(address), address->length);
    sure("io_uring_submit", io_uring_submit(ring));
    sure("io_uring_wait_cqe", io_uring_wait_cqe(ring, &done));
    result = done->res;
    io_uring_cqe_seen(ring, done);
    errno = -result;
    return result < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    int fd = tcp_socket(&address, 0);
    struct io_uring ring;
    int error = io_uring_queue_init(4, &ring, 0);
    int result;

    (void)argc;
    printf("ring: %s\n", name_of(-error));
    result = error < 0 ? dial(fd, &address) : dial_by_ring(&ring, fd, &address);
    say(result, "connect");
    if (result == 0)
        say_rest(fd, "greeting");
    return 0;
}
