/* options.c - operations that set and get options
 *
 *   set SLOT OPTION VALUE     get SLOT OPTION
 *
 * VALUE is a number; for a linger two, SECONDS and on or off; for a timeout milliseconds; a word for the
 * rest. Sizes of buffers are printed only where they were set: else the kernel makes them grow. */
#include "differ.h"

#include <arpa/inet.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define TEXT_MAX 64

enum kind {
    NUMBER,
    SIZE,
    LINGER,
    TIMEOUT,
    TEXT,
    WIDE
};

struct option_name {
    const char *name;
    int level;
    int option;
    enum kind kind;
};

static const struct option_name options[] = {
    {"reuseaddr", SOL_SOCKET, SO_REUSEADDR, NUMBER},
    {"reuseport", SOL_SOCKET, SO_REUSEPORT, NUMBER},
    {"keepalive", SOL_SOCKET, SO_KEEPALIVE, NUMBER},
    {"broadcast", SOL_SOCKET, SO_BROADCAST, NUMBER},
    {"oobinline", SOL_SOCKET, SO_OOBINLINE, NUMBER},
    {"dontroute", SOL_SOCKET, SO_DONTROUTE, NUMBER},
    {"priority", SOL_SOCKET, SO_PRIORITY, NUMBER},
    {"mark", SOL_SOCKET, SO_MARK, NUMBER},
    {"rcvlowat", SOL_SOCKET, SO_RCVLOWAT, NUMBER},
    {"sndbuf", SOL_SOCKET, SO_SNDBUF, SIZE},
    {"rcvbuf", SOL_SOCKET, SO_RCVBUF, SIZE},
    {"linger", SOL_SOCKET, SO_LINGER, LINGER},
    {"sndtimeo", SOL_SOCKET, SO_SNDTIMEO, TIMEOUT},
    {"rcvtimeo", SOL_SOCKET, SO_RCVTIMEO, TIMEOUT},
    {"device", SOL_SOCKET, SO_BINDTODEVICE, TEXT},
    {"timestamp", SOL_SOCKET, SO_TIMESTAMP, NUMBER},
    {"zerocopy", SOL_SOCKET, SO_ZEROCOPY, NUMBER},
    {"passcred", SOL_SOCKET, SO_PASSCRED, NUMBER},
    {"error", SOL_SOCKET, SO_ERROR, NUMBER},
    {"type", SOL_SOCKET, SO_TYPE, NUMBER},
    {"domain", SOL_SOCKET, SO_DOMAIN, NUMBER},
    {"protocol", SOL_SOCKET, SO_PROTOCOL, NUMBER},
    {"acceptconn", SOL_SOCKET, SO_ACCEPTCONN, NUMBER},
    {"netns", SOL_SOCKET, SO_NETNS_COOKIE, WIDE},
    {"nodelay", IPPROTO_TCP, TCP_NODELAY, NUMBER},
    {"keepidle", IPPROTO_TCP, TCP_KEEPIDLE, NUMBER},
    {"keepintvl", IPPROTO_TCP, TCP_KEEPINTVL, NUMBER},
    {"keepcnt", IPPROTO_TCP, TCP_KEEPCNT, NUMBER},
    {"syncnt", IPPROTO_TCP, TCP_SYNCNT, NUMBER},
    {"linger2", IPPROTO_TCP, TCP_LINGER2, NUMBER},
    {"maxseg", IPPROTO_TCP, TCP_MAXSEG, NUMBER},
    {"usertimeout", IPPROTO_TCP, TCP_USER_TIMEOUT, NUMBER},
    {"notsentlowat", IPPROTO_TCP, TCP_NOTSENT_LOWAT, NUMBER},
    {"fastopenconnect", IPPROTO_TCP, TCP_FASTOPEN_CONNECT, NUMBER},
    {"fastopennocookie", IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, NUMBER},
    {"congestion", IPPROTO_TCP, TCP_CONGESTION, TEXT},
    {"tos", IPPROTO_IP, IP_TOS, NUMBER},
    {"ttl", IPPROTO_IP, IP_TTL, NUMBER},
    {"recverr", IPPROTO_IP, IP_RECVERR, NUMBER},
    {"mtudiscover", IPPROTO_IP, IP_MTU_DISCOVER, NUMBER},
    {"freebind", IPPROTO_IP, IP_FREEBIND, NUMBER},
    {"transparent", IPPROTO_IP, IP_TRANSPARENT, NUMBER},
    {"noport", IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, NUMBER},
    {"recvttl", IPPROTO_IP, IP_RECVTTL, NUMBER},
    {"recvtos", IPPROTO_IP, IP_RECVTOS, NUMBER},
    {"pktinfo", IPPROTO_IP, IP_PKTINFO, NUMBER},
    {"recvorigdstaddr", IPPROTO_IP, IP_RECVORIGDSTADDR, NUMBER},
    {"v6only", IPPROTO_IPV6, IPV6_V6ONLY, NUMBER},
    {"recverr6", IPPROTO_IPV6, IPV6_RECVERR, NUMBER},
    {"recvpktinfo6", IPPROTO_IPV6, IPV6_RECVPKTINFO, NUMBER},
    {"recvhoplimit", IPPROTO_IPV6, IPV6_RECVHOPLIMIT, NUMBER},
    {"tclass", IPPROTO_IPV6, IPV6_TCLASS, NUMBER},
    {"hops", IPPROTO_IPV6, IPV6_UNICAST_HOPS, NUMBER},
    {"addrform", IPPROTO_IPV6, IPV6_ADDRFORM, NUMBER},
};

static const struct option_name *option_named(const char *name)
{
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    fprintf(stderr, "not an option: %s\n", name);
    exit(99);
}

union value {
    int number;
    uint64_t wide;
    struct linger linger;
    struct timeval timeout;
    char text[TEXT_MAX];
};

/* Return: the value's size. */
static socklen_t parse(const struct option_name *option, char **words, int n_words,
                       union value *ret)
{
    const int number = atoi(words[3]);

    switch (option->kind) {
    case LINGER:
        ret->linger.l_linger = number;
        ret->linger.l_onoff = n_words > 4 && strcmp(words[4], "on") == 0;
        return sizeof(ret->linger);
    case TIMEOUT:
        ret->timeout.tv_sec = number / 1000;
        ret->timeout.tv_usec = number % 1000 * 1000;
        return sizeof(ret->timeout);
    case TEXT:
        strncpy(ret->text, words[3], sizeof(ret->text) - 1);
        return (socklen_t)strlen(ret->text);
    default:
        ret->number = number;
        return sizeof(ret->number);
    }
}

static void do_set(char **words, int n_words)
{
    const struct option_name *option = option_named(words[2]);
    union value value = {0};
    socklen_t size = parse(option, words, n_words, &value);
    int fd = slot_fd(words[1]);
    struct note *note;
    int result;

    note = option->kind == SIZE ? note_of(fd) : NULL;
    result = setsockopt(fd, option->level, option->option, &value, size);
    tell_result(result);
    if (note != NULL)
        note->buffers = true;
}

static void tell_value(const struct option_name *option, const union value *value, socklen_t size)
{
    switch (option->kind) {
    case LINGER:
        tell(" %d %d", value->linger.l_onoff, value->linger.l_linger);
        break;
    case TIMEOUT:
        tell(" %ld.%06ld", (long)value->timeout.tv_sec, (long)value->timeout.tv_usec);
        break;
    case TEXT:
        tell(" '%s'", value->text);
        break;
    case WIDE:
        tell(" %#llx", (unsigned long long)value->wide);
        break;
    default:
        if (option->option == SO_ERROR && option->level == SOL_SOCKET)
            tell(" %s", error_name(value->number));
        else
            tell(" %d", value->number);
    }
    tell(" size %u", size);
}

static void do_get(char **words, int n_words)
{
    const struct option_name *option = option_named(words[2]);
    union value value = {0};
    socklen_t size = sizeof(value) - 1;
    int fd = slot_fd(words[1]);
    int result = getsockopt(fd, option->level, option->option, &value, &size);
    struct note *note;

    (void)n_words;
    tell_result(result);
    note = option->kind == SIZE ? note_of(fd) : NULL;
    if (result == 0 && (option->kind != SIZE || (note != NULL && note->buffers)))
        tell_value(option, &value, size);
}

const struct operation option_operations[] = {{"set", do_set}, {"get", do_get}, {NULL, NULL}};
