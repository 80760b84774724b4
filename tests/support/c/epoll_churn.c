/* epoll_churn.c - epoll_churn HOST PORT N: bind N sockets while threads put them into epoll instances
 *
 * Each thread makes an instance, adds the socket and closes the instance, for ever. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>

#include "say.h"

#define N_THREADS 3

static atomic_int current = -1;

static void *churn(void *unused)
{
    (void)unused;
    for (;;) {
        struct epoll_event event = {.events = EPOLLIN};
        int epoll = sure("epoll_create1", epoll_create1(EPOLL_CLOEXEC));

        (void)epoll_ctl(epoll, EPOLL_CTL_ADD, current, &event); /* EBADF: between two sockets */
        close(epoll);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    const int on = 1;
    int n_failed = 0;

    (void)argc;
    for (int i = 0; i < N_THREADS; i++) {
        pthread_t thread;

        sure("pthread_create", -pthread_create(&thread, NULL, churn, NULL));
    }
    for (int i = 0; i < atoi(argv[3]); i++) {
        int fd = tcp_socket(&address, SOCK_CLOEXEC);

        sure("SO_REUSEADDR", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
        current = fd;
        if (bind(fd, sockaddr_of(&address), address.length) < 0) {
            say(-1, "bind");
            n_failed++;
        }
        current = -1;
        close(fd);
    }
    printf("failed: %d\n", n_failed);
    return 0;
}
