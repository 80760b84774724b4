/* resolve.c - resolve NAME: the IPv4 addresses that the C library's own resolver finds */
#include <netdb.h>
#include <string.h>

#include "say.h"

int main(int argc, char **argv)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(argv[1], NULL, &hints, &found);
    char text[INET_ADDRSTRLEN];

    (void)argc;
    if (error != 0) {
        puts(gai_strerror(error));
        return 1;
    }
    for (const struct addrinfo *one = found; one != NULL; one = one->ai_next)
        puts(inet_ntop(AF_INET, &((struct sockaddr_in *)one->ai_addr)->sin_addr, text,
                       sizeof(text)));
    freeaddrinfo(found);
    return 0;
}
