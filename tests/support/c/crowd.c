/* crowd.c - crowd HOST PORT N EACH: N threads connect at once, EACH times, and read the greeting
 *
 * Prints how many greetings were whole, and the first error of each kind. */
#include <pthread.h>

#include "say.h"

#define N_MAX 256

static struct address address;
static pthread_barrier_t start;
static int n_each;
static int n_greeted;

static void *connect_often(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&start);
    for (int i = 0; i < n_each; i++) {
        char text[64];
        int fd = tcp_socket(&address, SOCK_CLOEXEC);

        if (dial(fd, &address) < 0)
            say(-1, "connect");
        else if (recv(fd, text, sizeof(text), 0) > 0)
            __atomic_add_fetch(&n_greeted, 1, __ATOMIC_RELAXED);
        close(fd);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[N_MAX];
    int n = atoi(argv[3]);

    (void)argc;
    address = address_of(argv[1], argv[2]);
    n_each = atoi(argv[4]);
    if (n > N_MAX || pthread_barrier_init(&start, NULL, (unsigned)n) != 0)
        return SET_UP_FAILED;
    for (int i = 0; i < n; i++)
        sure("pthread_create", -pthread_create(&threads[i], NULL, connect_often, NULL));
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    printf("greeted: %d\n", n_greeted);
    return 0;
}
