/* SPDX-License-Identifier: MIT */
/*
 * handover: what it costs to hand memory over to another process.
 *
 *     sender             xman, the manager            receiver
 *     mapping --------- [ a memory ] ---------------> mapping    a descriptor
 *     mapping --------------------------------------> copy       every byte
 * Getting ends with a new mapping: who reads it pays for its page faults. The
 * copy goes to memory that was touched before: that is copying at its best.
 *     bench/handover
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

/* Messages are as in extra/xman.c: operation or errno, then ID, then size. */
enum { ALLOCATE = 1, GET, FREE, ROWS = 6 };
typedef unsigned long long number;
static const char *const names[ROWS] = {"4 KiB",  "64 KiB",  "1 MiB",
                                        "16 MiB", "256 MiB", "1 GiB"};
static const number sizes[ROWS] = {1 << 12, 1 << 16, 1 << 20,
                                   1 << 24, 1 << 28, 1 << 30};
static number ids[ROWS];
static wchar_t *originals[ROWS]; /* where the sender has them */
static const char usage[] =
    "usage: handover [--runs=N] [--largest=BYTES] [--xman=PATH]\n"
    "Get up to --largest bytes (1 GiB) from a manager, or copy, --runs times.\n"
    "example: handover --runs=1 --largest=16777216";
static const struct timeval patience = {.tv_sec = 20};
static struct sockaddr_un manager = {.sun_family = AF_UNIX};

static number parse(const char *text, number least)
{
    const number parsed = strtoull(text, NULL, 10);
    if (text[strspn(text, "0123456789")] || parsed < least || errno == ERANGE)
        errx(2, "%s: not a number from %llu", text, least);
    return parsed;
}

/* Returns 0 in the child, which ends when we end, however we do. The stream
   tells at once that it has ended, and after a while that it is silent. */
static pid_t start_child(int *stream)
{
    const pid_t parent = getpid();
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
        err(1, "socketpair");
    setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    if (child == 0) prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (child == 0 && getppid() != parent) _exit(1);
    close(ends[child != 0]);
    *stream = ends[child == 0];
    return child;
}

/* Once the manager is ready, a descriptor of its socket is enough: the name
   goes before a signal comes, and then nothing can be left of it. */
static pid_t start_manager(const char *program)
{
    const char *place = getenv("TMPDIR");
    char option[256], *path = option + strlen("--socket="), said[6] = "";
    int stream;
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    snprintf(option, sizeof option, "--socket=%s/handover-%d",
             place && *place ? place : "/tmp", getpid());
    const pid_t child = start_child(&stream);
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        dup2(stream, STDOUT_FILENO), dup2(stream, STDERR_FILENO);
        execl(program, "xman", option, "manager", NULL);
        _exit(1);
    }
    recv(stream, said, sizeof said, MSG_WAITALL);
    const int fd = open(path, O_PATH | O_CLOEXEC);
    if (memcmp(said, "ready\n", sizeof said) != 0 || unlink(path) == -1)
        errx(1, "%s: no manager at %s", program, path);
    sigprocmask(SIG_SETMASK, &before, NULL);
    sprintf(manager.sun_path, "/proc/self/fd/%d", fd);
    return child;
}

/* Maps the memory whose descriptor comes with the reply. As in xman, a request
   has a socket of its own; bind() without a name finds one for the reply. */
static wchar_t *ask(number operation, int row)
{
    const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED;
    number message[] = {operation, ids[row], sizes[row]};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec data = {message, sizeof message};
    struct msghdr reply = {.msg_iov = &data, .msg_iovlen = 1};
    reply.msg_control = control, reply.msg_controllen = sizeof control;
    const int client = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (bind(client, (void *)&manager, sizeof manager.sun_family) == -1 ||
        sendto(client, message, sizeof message, 0, (void *)&manager,
               sizeof manager) == -1 ||
        recvmsg(client, &reply, MSG_CMSG_CLOEXEC) == -1 || (errno = *message))
        err(1, "manager: %s", names[row]);
    const int fd = *(int *)(void *)CMSG_DATA((struct cmsghdr *)control);
    wchar_t *words = mmap(NULL, sizes[row], prot, flags, fd, 0);
    if (words == MAP_FAILED) err(1, "%s", names[row]);
    ids[row] = message[1];
    close(fd), close(client);
    return words;
}

/* Answers the number of a row with all the bytes of its memory. */
static int be_sender(int receiver)
{
    unsigned char row;
    while (recv(receiver, &row, 1, 0) == 1)
        send(receiver, originals[row], sizes[row], MSG_NOSIGNAL);
    return 0;
}

/* How long until there are `count` words: as the sender's copy, or in a new
   mapping, and read. To look for the last of them is to read all. */
static void measure(const char *table, int row, number count, int sender,
                    wchar_t *words)
{
    const int times = count > 1 << 18 ? 1 : 100; /* up to 1 MiB, a mean */
    struct timespec start, stop;
    double time = 0;
    for (int i = 0; i < times; i++) {
        if (sender) memset(words, 0, sizes[row]);
        clock_gettime(CLOCK_MONOTONIC, &start);
        if (sender) send(sender, &(char){row}, 1, MSG_NOSIGNAL);
        if (sender) recv(sender, words, sizes[row], MSG_WAITALL);
        if (!sender) words = ask(GET, row);
        const int found = sender || wmemchr(words, count, count);
        clock_gettime(CLOCK_MONOTONIC, &stop);
        time += (stop.tv_sec - start.tv_sec) * 1e6;
        time += (stop.tv_nsec - start.tv_nsec) / 1e3;
        if (!found) errx(1, "%s: word %llu did not arrive", names[row], count);
        for (number n = 0; n < count; n++)
            if (words[n] != (wchar_t)n + 1)
                errx(1, "%s: word %llu did not arrive", names[row], n + 1);
        if (!sender) munmap(words, sizes[row]);
    }
    printf("%s\t%s\t%.1f\tus\n", table, names[row], time / times);
    if (ferror(stdout)) err(1, "stdout");
}

int main(int argc, char *argv[])
{
    const struct option options[] = {{"runs", 1, 0, 'r'},
                                     {"largest", 1, 0, 'l'},
                                     {"xman", 1, 0, 'x'},
                                     {"help", 0, 0, 'h'},
                                     {0}};
    number runs = 5, largest = 1 << 30, kib = 0;
    char beside[4096], *xman = beside;
    int option, sender, rows = 0;
    if (fcntl(1, F_GETFD) || fcntl(2, F_GETFD)) err(1, "stdout or stderr");
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(beside, sizeof beside, "%s/../extra/xman",
             dirname(realpath("/proc/self/exe", NULL)));
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'r': runs = parse(optarg, 1); break;
        case 'l': largest = parse(optarg, sizes[0]); break;
        case 'x': xman = optarg; break;
        case 'h': return puts(usage) == EOF ? warn("stdout"), 1 : 0;
        case '?': return 2;
        }
    if (optind < argc) errx(2, "%s: try --help", argv[optind]);
    /* All the memories and a copy are less than 5/2 of the largest: they may
       take half of the RAM that is available, and of all addresses. */
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL || fscanf(file, "%*[^A]Available: %llu", &kib) != 1)
        errx(1, "/proc/meminfo: does not say what is available");
    const number room = (kib < SIZE_MAX / 1024 ? kib * 1024 : SIZE_MAX) / 5;
    /* All on one core: to wake another takes longer than to copy a page. */
    cpu_set_t core = {0};
    CPU_SET(sched_getcpu(), &core);
    if (sched_setaffinity(0, sizeof core, &core) == -1) err(1, "affinity");
    const pid_t child = start_manager(xman);
    for (int row = 1; row < ROWS && sizes[row] <= largest; row++)
        if (sizes[row] > room)
            printf("# %s: left out, the memory is too small\n", names[row]);
    do {
        originals[rows] = ask(ALLOCATE, rows);
        for (number n = 0; n < sizes[rows] / sizeof(wchar_t); n++)
            originals[rows][n] = n + 1;
    } while (++rows < ROWS && sizes[rows] <= largest && sizes[rows] <= room);
    wchar_t *copy = malloc(sizes[rows - 1]);
    if (copy == NULL) err(1, "%s", names[rows - 1]);
    if (start_child(&sender) == 0) return be_sender(sender);
    while (runs-- > 0)
        for (int row = 0; row < rows; row++) {
            const number all = sizes[row] / sizeof *copy;
            measure("get a memory from xman", row, 1, 0, NULL);
            measure("get it, and read all of it", row, all, 0, NULL);
            measure("copy it through a socket", row, all, sender, copy);
        }
    while (rows-- > 0) ask(FREE, rows);
    close(sender), kill(child, SIGTERM);
    while (wait(NULL) != -1) continue;
}
