/* datagrams.c - datagrams SCENARIO HOST PORT: everything that UDP programs do with a server's address
 *
 * The server answers each datagram with "NAME:" and what it got, but "quiet". An address that is the given HOST
 * and PORT is printed as "server", so that a transcript does not depend on where it leads. */
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "say.h"

#define ROOM 70000

static struct address server;
static char big[ROOM];
static void *volatile nowhere = (void *)8; /* no program has that page */

static const char *named(const struct sockaddr_storage *storage, socklen_t length)
{
    static char text[INET6_ADDRSTRLEN + 64];
    const struct sockaddr_in *in = (const struct sockaddr_in *)storage;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)storage;
    char host[INET6_ADDRSTRLEN];

    if (length == server.length && storage->ss_family == server.family &&
        (server.family == AF_INET
             ? memcmp(in, &server.storage, 8) == 0 /* family, port, address */
             : memcmp(&in6->sin6_addr, &((struct sockaddr_in6 *)&server.storage)->sin6_addr, 16) ==
                       0 &&
                   in6->sin6_port == ((struct sockaddr_in6 *)&server.storage)->sin6_port))
        return "server";
    if (storage->ss_family == AF_INET) {
        snprintf(text, sizeof(text), "%s:%d (%u)",
                 inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)), ntohs(in->sin_port),
                 length);
        return text;
    }
    if (storage->ss_family == AF_INET6) {
        snprintf(text, sizeof(text), "[%s]:%d (%u)",
                 inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)), ntohs(in6->sin6_port),
                 length);
        return text;
    }
    snprintf(text, sizeof(text), "family %d (%u)", storage->ss_family, length);
    return text;
}

static int udp_socket(int flags)
{
    return sure("socket", socket(server.family, SOCK_DGRAM | flags, 0));
}

static ssize_t send_text(int fd, const char *text)
{
    return sendto(fd, text, strlen(text), 0, sockaddr_of(&server), server.length);
}

static void say_received(const char *step, int fd, int flags)
{
    struct sockaddr_storage source = {0};
    socklen_t length = sizeof(source);
    char text[256] = "";
    ssize_t n;

    if ((flags & MSG_DONTWAIT) == 0)
        wait_for(fd, POLLIN);
    n = recvfrom(fd, text, sizeof(text) - 1, flags, (struct sockaddr *)&source, &length);
    if (n < 0) {
        say_count(step, n);
        return;
    }
    printf("%s: %zd \"%.*s\" from %s\n", step, n, (int)n, text, named(&source, length));
    fflush(stdout);
}

static void plainly(void)
{
    int fd = udp_socket(0);
    struct sockaddr_storage source = {0};
    socklen_t length;
    char text[8];

    say_received("nothing yet", fd, MSG_DONTWAIT);
    say_count("send", send_text(fd, "one"));
    say_received("peek", fd, MSG_PEEK);
    say_received("receive", fd, 0);
    say_count("send empty", send_text(fd, ""));
    say_received("receive", fd, 0);
    say_count("send", send_text(fd, "cut short"));
    wait_for(fd, POLLIN);
    length = 5;
    say_count("receive 8 bytes, and 5 of the address",
              recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)&source, &length));
    printf("text %.8s, length %u, family %d, rest %d\n", text, length, source.ss_family,
           ((char *)&source)[5]);
    say_count("send", send_text(fd, "cut short"));
    wait_for(fd, POLLIN);
    say_count("receive, told of truncation",
              recvfrom(fd, text, sizeof(text), MSG_TRUNC, (struct sockaddr *)&source, NULL));
    say_count("send", send_text(fd, "no length"));
    wait_for(fd, POLLIN);
    length = (socklen_t)-1;
    say_count("receive with a negative length",
              recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)&source, &length));
    say_count("send", send_text(fd, "no address"));
    wait_for(fd, POLLIN);
    say_count("receive without an address", recvfrom(fd, text, sizeof(text), 0, NULL, &length));
    say_count("send", send_text(fd, "bad place"));
    wait_for(fd, POLLIN);
    length = sizeof(source);
    say_count("receive to nowhere",
              recvfrom(fd, nowhere, sizeof(text), 0, (struct sockaddr *)&source, &length));
    say_received("it is gone", fd, MSG_DONTWAIT);
}

static void at_the_limits(void)
{
    int fd = udp_socket(0);
    size_t most = server.family == AF_INET ? 65507 : 65487;
    struct sockaddr_storage source;
    socklen_t length = sizeof(source);

    sure("SO_SNDBUF", setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){1 << 20}, sizeof(int)));
    sure("SO_RCVBUF", setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){1 << 20}, sizeof(int)));
    memset(big, 'x', sizeof(big));
    say_count("send too much", sendto(fd, big, most + 1, 0, sockaddr_of(&server), server.length));
    say_count("send much too much", sendto(fd, big, ROOM, 0, sockaddr_of(&server), server.length));
    say_count("send most", sendto(fd, big, most - 10, 0, sockaddr_of(&server), server.length));
    wait_for(fd, POLLIN);
    say_count("receive most", recvfrom(fd, big, ROOM, 0, (struct sockaddr *)&source, &length));
    printf("from %s\n", named(&source, length));
    say_count("send from nowhere", sendto(fd, nowhere, 4, 0, sockaddr_of(&server), server.length));
    say_count("send to nowhere", sendto(fd, "x", 1, 0, nowhere, server.length));
    say_count("send to a short address", sendto(fd, "x", 1, 0, sockaddr_of(&server), 8));
    say_count("send to a long address", sendto(fd, "x", 1, 0, sockaddr_of(&server), 200));
    say_count("send to no length", sendto(fd, "x", 1, 0, sockaddr_of(&server), 0));
    say_count("send to no fd", sendto(-1, "x", 1, 0, sockaddr_of(&server), server.length));
    say_count("send with MSG_OOB",
              sendto(fd, "x", 1, MSG_OOB, sockaddr_of(&server), server.length));
    say_count("send with MSG_MORE",
              sendto(fd, "a", 1, MSG_MORE, sockaddr_of(&server), server.length));
    say_count("and the rest", sendto(fd, "b", 1, 0, sockaddr_of(&server), server.length));
    say_received("in one", fd, 0);
}

static void say_message(const char *step, struct msghdr *message, ssize_t n)
{
    if (n < 0) {
        say_count(step, n);
        return;
    }
    printf("%s: %zd, flags %#x, from %s", step, n, (unsigned)message->msg_flags,
           message->msg_name == NULL ? "nobody" : named(message->msg_name, message->msg_namelen));
    for (size_t i = 0; i < message->msg_iovlen; i++)
        printf(" [%.*s]", (int)message->msg_iov[i].iov_len, (char *)message->msg_iov[i].iov_base);
    for (struct cmsghdr *one = CMSG_FIRSTHDR(message); one != NULL;
         one = CMSG_NXTHDR(message, one)) {
        printf(" {level %d type %d length %zu", one->cmsg_level, one->cmsg_type,
               (size_t)one->cmsg_len - CMSG_LEN(0));
        if (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_TOS)
            printf(" tos %#x", *CMSG_DATA(one));
        if (one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_TCLASS)
            printf(" tclass %#x", *(int *)CMSG_DATA(one));
        if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SO_TIMESTAMP)
            printf(" since 2020: %d", ((struct timeval *)CMSG_DATA(one))->tv_sec > 1577836800);
        printf("}");
    }
    printf("\n");
    fflush(stdout);
}

static void as_messages(void)
{
    const int on = 1;
    int fd = udp_socket(0);
    int is_ipv4 = server.family == AF_INET;
    char parts[3][4];
    struct iovec to_send[] = {{"mes", 3}, {"", 0}, {"sage", 4}};
    struct iovec to_fill[] = {{parts[0], 4}, {parts[1], 4}, {parts[2], 4}};
    struct sockaddr_storage source;
    union {
        struct cmsghdr align;
        char room[256];
    } control = {0};
    struct cmsghdr *tos;
    struct msghdr out = {.msg_name = &server.storage,
                         .msg_namelen = server.length,
                         .msg_iov = to_send,
                         .msg_iovlen = 3,
                         .msg_control = &control,
                         .msg_controllen = CMSG_SPACE(sizeof(int))};
    struct msghdr in = {.msg_name = &source, .msg_iov = to_fill, .msg_iovlen = 3};

    sure("IP_RECVTOS", setsockopt(fd, is_ipv4 ? IPPROTO_IP : IPPROTO_IPV6,
                                  is_ipv4 ? IP_RECVTOS : IPV6_RECVTCLASS, &on, sizeof(on)));
    tos = CMSG_FIRSTHDR(&out);
    *tos = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
                            .cmsg_level = is_ipv4 ? IPPROTO_IP : IPPROTO_IPV6,
                            .cmsg_type = is_ipv4 ? IP_TOS : IPV6_TCLASS};
    *(int *)CMSG_DATA(tos) = 0x20;
    say_count("send", sendmsg(fd, &out, 0));
    wait_for(fd, POLLIN);
    in.msg_namelen = sizeof(source);
    in.msg_control = &control;
    in.msg_controllen = sizeof(control);
    say_message("receive", &in, recvmsg(fd, &in, 0));
    sure("SO_TIMESTAMP", setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)));
    out.msg_control = NULL;
    out.msg_controllen = 0;
    say_count("send", sendmsg(fd, &out, 0));
    wait_for(fd, POLLIN);
    in.msg_namelen = sizeof(source);
    in.msg_controllen = sizeof(control);
    say_message("receive with a time", &in, recvmsg(fd, &in, 0));
    say_count("send", sendmsg(fd, &out, 0));
    wait_for(fd, POLLIN);
    in.msg_namelen = sizeof(source);
    in.msg_controllen = CMSG_LEN(2);
    say_message("receive with little room for control", &in, recvmsg(fd, &in, 0));
    say_count("send", sendmsg(fd, &out, 0));
    wait_for(fd, POLLIN);
    in.msg_name = NULL;
    in.msg_namelen = 77;
    in.msg_control = NULL;
    in.msg_controllen = 0;
    in.msg_iovlen = 1;
    say_message("receive with no room", &in, recvmsg(fd, &in, 0));
    printf("length of no name: %u\n", in.msg_namelen);
    tos->cmsg_len = 3;
    out.msg_control = &control;
    out.msg_controllen = sizeof(control);
    say_count("send with bad control", sendmsg(fd, &out, 0));
    out.msg_control = nowhere;
    say_count("send with control from nowhere", sendmsg(fd, &out, 0));
    say_count("send from nowhere", sendmsg(fd, nowhere, 0));
    out.msg_control = NULL;
    out.msg_controllen = 0;
    out.msg_iovlen = 1025;
    say_count("send too many parts", sendmsg(fd, &out, 0));
    out.msg_iov = NULL;
    out.msg_iovlen = 0;
    say_count("send no parts", sendmsg(fd, &out, 0));
    say_received("receive", fd, 0);
    out.msg_name = NULL;
    out.msg_iov = to_send;
    out.msg_iovlen = 3;
    say_count("send without an address", sendmsg(fd, &out, 0));
}

static void in_bulk(void)
{
    enum {
        N = 4
    };
    int fd = udp_socket(0);
    char texts[N][16];
    struct sockaddr_storage sources[N];
    struct iovec parts[N];
    struct mmsghdr messages[N];
    struct timespec second = {.tv_sec = 1};
    struct timespec none = {0};
    int n;

    memset(messages, 0, sizeof(messages));
    for (int i = 0; i < N; i++) {
        snprintf(texts[i], sizeof(texts[i]), "bulk%.*s", i, "+++");
        parts[i] = (struct iovec){texts[i], strlen(texts[i])};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &server.storage,
                                              .msg_namelen = server.length,
                                              .msg_iov = &parts[i],
                                              .msg_iovlen = 1};
    }
    n = sendmmsg(fd, messages, N, 0);
    say_count("send", n);
    for (int i = 0; i < N; i++)
        printf("length %u\n", messages[i].msg_len);
    for (int i = 0; i < N; i++) {
        parts[i].iov_len = sizeof(texts[i]);
        messages[i].msg_hdr.msg_name = &sources[i];
        messages[i].msg_hdr.msg_namelen = sizeof(sources[i]);
    }
    n = recvmmsg(fd, messages, N, 0, NULL); /* waits for all */
    say_count("receive all", n);
    for (int i = 0; i < n; i++)
        printf("%u \"%.*s\" from %s\n", messages[i].msg_len, (int)messages[i].msg_len, texts[i],
               named(&sources[i], messages[i].msg_hdr.msg_namelen));
    say_count("receive nothing", recvmmsg(fd, messages, N, MSG_DONTWAIT, NULL));
    say_count("send", send_text(fd, "a"));
    say_count("receive one", recvmmsg(fd, messages, N, MSG_WAITFORONE, NULL));
    say_count("send", send_text(fd, "b"));
    say_count("receive until time is over", recvmmsg(fd, messages, N, 0, &none));
    printf("left %d\n", (int)none.tv_sec);
    say_count("send", send_text(fd, "c"));
    say_count("receive in time", recvmmsg(fd, messages, 1, 0, &second));
    printf("left less: %d\n", second.tv_sec == 0 && second.tv_nsec > 0);
    second.tv_nsec = -1;
    say_count("receive with a bad time", recvmmsg(fd, messages, 1, 0, &second));
    messages[1].msg_hdr.msg_name = nowhere;
    messages[0].msg_hdr.msg_name = &server.storage;
    messages[0].msg_hdr.msg_namelen = server.length;
    say_count("send, the second to nowhere", sendmmsg(fd, messages, 2, 0));
    say_count("send, the first to nowhere", sendmmsg(fd, messages + 1, 1, 0));
    say_count("send none", sendmmsg(fd, messages, 0, 0));
}

static void connected(void)
{
    int fd = udp_socket(0);
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);

    say_count("send before", send(fd, "x", 1, 0));
    say(dial(fd, &server), "connect");
    sure("getpeername", getpeername(fd, (struct sockaddr *)&peer, &length));
    printf("peer %s\n", named(&peer, length));
    length = 3;
    sure("getpeername", getpeername(fd, (struct sockaddr *)&peer, &length));
    printf("its length %u\n", length);
    say(getpeername(fd, (struct sockaddr *)&peer, NULL), "peer without a length");
    length = (socklen_t)-5;
    say(getpeername(fd, (struct sockaddr *)&peer, &length), "peer with a negative length");
    length = sizeof(peer);
    say(getpeername(fd, nowhere, &length), "peer to nowhere");
    say_count("send", send(fd, "con", 3, 0));
    say_received("receive", fd, 0);
    say_count("write", write(fd, "wri", 3));
    say_received("receive", fd, 0);
    say(dial(fd, &server), "connect again");
    say_count("send with an address", send_text(fd, "both"));
    say_received("receive", fd, 0);
    say(connect(fd, &nobody, sizeof(nobody)), "disconnect");
    length = sizeof(peer);
    say(getpeername(fd, (struct sockaddr *)&peer, &length), "peer");
    say_count("send", send(fd, "x", 1, 0));
    say_count("send with an address", send_text(fd, "after"));
    say_received("receive", fd, 0);
    say(shutdown(fd, SHUT_WR), "shut down");
    say(dial(fd, &server), "connect");
    say(shutdown(fd, SHUT_WR), "shut down");
    say_count("send", send(fd, "x", 1, MSG_NOSIGNAL));
    say_count("send with an address", send_text(fd, "x"));
}

static void handle(int signo)
{
    static const char text[] = "handled\n";

    (void)signo;
    if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
        _exit(SET_UP_FAILED);
}

/* A new thread changes its signal mask, and may then take a signal that waits for the process (README, limits):
 * so the receive begins when the thread is past that. */
static pthread_barrier_t started;

static void *answer_later(void *argument)
{
    (void)pthread_barrier_wait(&started);
    (void)wait_line();
    say_count("send from a thread", send_text(*(int *)argument, "thread"));
    return NULL;
}

/* Each receive blocks: what ends it is the time, a signal (the test sends it), or a datagram. */
static void waiting(int restart)
{
    int fd = udp_socket(0);
    struct sigaction action = {.sa_handler = handle, .sa_flags = restart ? SA_RESTART : 0};
    struct timeval timeout = {.tv_usec = 100000};
    struct timeval none = {0};
    struct sockaddr_storage source;
    socklen_t length = sizeof(source);
    pthread_t thread;
    char text[64];
    ssize_t n;

    sure("sigaction", sigaction(SIGUSR1, &action, NULL));
    say_count("send", send_text(fd, "quiet")); /* it has a port now */
    sure("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)));
    n = recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)&source, &length);
    say_count("receive until time is over", n);
    sure("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none)));
    if (pthread_barrier_init(&started, NULL, 2) != 0 ||
        pthread_create(&thread, NULL, answer_later, &fd) != 0)
        sure("pthread_create", -1);
    (void)pthread_barrier_wait(&started);
    printf("pid: %d\n", (int)getpid());
    fflush(stdout);
    n = recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)&source, &length);
    if (n < 0) {
        say_count("receive", n);
        n = recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)&source, &length);
    }
    pthread_join(thread, NULL);
    printf("receive: %zd from %s\n", n, named(&source, length));
}

/* A mark needs a privilege. */
static void marked(void)
{
    int fd = udp_socket(0);
    struct iovec part = {"x", 1};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                            .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SO_MARK}};
    struct msghdr message = {.msg_name = &server.storage,
                             .msg_namelen = server.length,
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};

    say_count("send with a mark", sendmsg(fd, &message, 0));
}

static void refused(void)
{
    int fd = udp_socket(0);

    say(dial(fd, &server), "connect");
    say_count("send", send(fd, "x", 1, 0));
    wait_for(fd, POLLIN);
    say_count("receive", recv(fd, big, sizeof(big), 0));
    say_count("send", send(fd, "x", 1, 0));
    wait_for(fd, POLLERR);
    printf("error: %s\n", name_of(socket_error(fd)));
}

/* An IPv6 socket, and the server's IPv4 address in both of its spellings. */
static void mixed(void)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&server.storage;
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = in->sin_port};
    int fd = sure("socket", socket(AF_INET6, SOCK_DGRAM, 0));
    struct sockaddr_in unspecified = *in;

    mapped.sin6_addr.s6_addr[10] = mapped.sin6_addr.s6_addr[11] = 0xff;
    memcpy(&mapped.sin6_addr.s6_addr[12], &in->sin_addr, 4);
    say_count("send to IPv4", send_text(fd, "four"));
    memcpy(&server.storage, &mapped, sizeof(mapped));
    server.family = AF_INET6;
    server.length = sizeof(mapped);
    say_received("receive", fd, 0);
    say_count("send to mapped", send_text(fd, "mapped"));
    say_received("receive", fd, 0);
    say(dial(fd, &server), "connect");
    say_count("send", send(fd, "con", 3, 0));
    say_received("receive", fd, 0);
    unspecified.sin_family = AF_UNSPEC;
    close(fd);
    fd = sure("socket", socket(AF_INET, SOCK_DGRAM, 0));
    say_count("send to no family",
              sendto(fd, "none", 4, 0, (struct sockaddr *)&unspecified, sizeof(unspecified)));
    server.family = AF_INET;
    server.length = sizeof(unspecified);
    unspecified.sin_family = AF_INET;
    memcpy(&server.storage, &unspecified, sizeof(unspecified));
    say_received("receive", fd, 0);
}

int main(int argc, char **argv)
{
    const char *scenario = argv[1];

    (void)argc;
    server = address_of(argv[2], argv[3]);
    if (strcmp(scenario, "plain") == 0)
        plainly();
    else if (strcmp(scenario, "limits") == 0)
        at_the_limits();
    else if (strcmp(scenario, "messages") == 0)
        as_messages();
    else if (strcmp(scenario, "bulk") == 0)
        in_bulk();
    else if (strcmp(scenario, "connected") == 0)
        connected();
    else if (strcmp(scenario, "handler") == 0)
        waiting(0);
    else if (strcmp(scenario, "restart") == 0)
        waiting(1);
    else if (strcmp(scenario, "marked") == 0)
        marked();
    else if (strcmp(scenario, "refused") == 0)
        refused();
    else if (strcmp(scenario, "mixed") == 0)
        mixed();
    return 0;
}
