/* ways_round.c - ways_round: calls that would go round the filter, and how they are answered */
#include <sys/syscall.h>

#include "say.h"

#define X32_BIT 0x40000000
#define URING_PARAMS_SIZE 120 /* struct io_uring_params */

int main(void)
{
    char params[URING_PARAMS_SIZE] = {0};

    say((int)syscall(SYS_io_uring_setup, 4, params), "io_uring_setup");
#ifdef __x86_64__
    say((int)syscall(X32_BIT | SYS_getpid), "x32 getpid");
    say((int)syscall(X32_BIT | SYS_socket, AF_INET, SOCK_STREAM, 0), "x32 socket");
#endif
    return 0;
}
