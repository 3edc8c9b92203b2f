/* SPDX-License-Identifier: MIT */
/*
 * xman: a memory manager, a process that hands out memory to other processes.
 *
 *      client A               manager                client B
 *    +---------+  allocate  +---------+    get 1   +---------+
 *    |         | ---------> | 1 memfd | <--------- |         |
 *    | mapping | <--------- | 2 memfd | ---------> | mapping |
 *    +----|----+    ID 1    +----|----+ descriptor +----|----+
 *         +--------------> the same pages <-------------+
 * Descriptors go over the socket, bytes never: getting a gigabyte costs what
 * a page costs. A memory stays until it is freed, its pages until unmapped.
 *
 *     ./extra/xman manager &
 *     ./extra/xman allocate 6; echo hello | ./extra/xman put 1
 * memfd_create(2), unix(7), cmsg(3); fcntl(2) explains the seals.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* The word is a request's operation, or a reply's errno: 0 is success. */
enum { ALLOCATE = 1, GET, FREE, NEXT };
typedef unsigned long long number;
struct message {
    number word, id, size;
};

/* Limits of a request, of a client, and beside --limit of the manager. */
static const number PER_REQUEST = 8ULL << 30;
enum { PER_PROCESS = 64, MEMORIES = 512 };

/* Nobody can change the size any more: no byte of a mapping is a SIGBUS. */
enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

/* Where the manager listens, and the directory there if it is ours alone. */
static char *path, *directory;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}

static int usage(void)
{
    puts("usage: xman [--socket=PATH] [COMMAND]\n"
         "Hand out memory to other processes; without COMMAND, show how.\n"
         "  manager [--limit=BYTES]  serve until INT or TERM; all together\n"
         "                           BYTES at most, or half of the RAM\n"
         "  allocate SIZE            print the ID of a new memory\n"
         "  put ID, get ID, free ID  fill it from stdin, print it, free it\n"
         "  list                     print every ID and size\n"
         "example: xman manager & xman allocate 6; echo hi | xman put 1");
    flush_stdout();
    return 0;
}

static number parse(const char *text)
{
    const number parsed = strtoull(text, NULL, 10);
    if (text[strspn(text, "0123456789")] || parsed == 0 || errno == ERANGE)
        errx(2, "%s: not a number from 1", text);
    return parsed;
}

/* Datagrams: there is no connection that a client could hold. SO_PASSCRED: the
   kernel names each one's sender, and gives a client an address for replies. */
static int open_socket(void)
{
    const int one = 1, fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == -1)
        err(1, "socket");
    return fd;
}

/* A message, and what the kernel hands over beside it, as control messages:
   its sender, and descriptors. There is room for two, to see who sends two. */
struct letter {
    struct message message;
    struct ucred sender;
    int fds[2];
    struct sockaddr_un from;
    struct iovec data;
    struct msghdr envelope;
    number control[8];
};

/* True for a whole message of our own user, with nothing that has no room. */
static int receive(int socket, struct letter *l, size_t room)
{
    *l = (struct letter){.fds = {-1, -1}, .sender = {.uid = -1}};
    l->data = (struct iovec){&l->message, sizeof l->message};
    l->envelope.msg_iov = &l->data;
    l->envelope.msg_iovlen = 1;
    l->envelope.msg_name = &l->from;
    l->envelope.msg_namelen = sizeof l->from;
    l->envelope.msg_control = l->control;
    l->envelope.msg_controllen = CMSG_SPACE(sizeof l->sender) + room;
    if (recvmsg(socket, &l->envelope, MSG_CMSG_CLOEXEC) != sizeof l->message)
        return 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&l->envelope); header;
         header = CMSG_NXTHDR(&l->envelope, header))
        memcpy(header->cmsg_type == SCM_RIGHTS ? (void *)l->fds : &l->sender,
               CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
    return l->sender.uid == getuid() &&
           !(l->envelope.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
}

/* What the manager knows: sizes and descriptors. It maps nothing. */
static struct memory {
    number id, size;
    pid_t owner;
    int fd;
} memories[MEMORIES]; /* each at the index id % MEMORIES */
static number limit, last_id;

/* ftruncate() makes a hole: time and RAM are spent by who writes to it. */
static int allocate(number size, pid_t owner)
{
    number total = 0, owned = 0, id = 0;
    for (number i = last_id + MEMORIES; i > last_id; i--) {
        total += memories[i % MEMORIES].size;
        owned += memories[i % MEMORIES].owner == owner;
        if (memories[i % MEMORIES].size == 0) id = i;
    }
    if (size == 0 || size > PER_REQUEST) return EFBIG;
    if (owned >= PER_PROCESS) return EDQUOT;
    if (id == 0 || size > limit - total) return ENOMEM;
    const int fd = memfd_create("xman", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd == -1) return errno;
    if (ftruncate(fd, size) == -1 || fcntl(fd, F_ADD_SEALS, SEALS) == -1)
        return close(fd), ENOMEM;
    memories[id % MEMORIES] = (struct memory){id, size, owner, fd};
    last_id = id;
    return 0;
}

/* Answers in the same envelope. Every success carries the descriptor: so who
   frees a gigabyte closes it last, and the kernel's work is that client's. */
static void serve(int out, struct letter *l)
{
    const number operation = l->message.word;
    if (operation < ALLOCATE || operation > NEXT) return;
    const int is_new = operation == ALLOCATE;
    int error = is_new ? allocate(l->message.size, l->sender.pid) : 0;
    number id = is_new ? last_id : l->message.id;
    if (operation == NEXT)
        while (id < last_id && memories[id % MEMORIES].id != id) id++;
    struct memory *memory = &memories[id % MEMORIES];
    if (!error && (memory->id != id || memory->size == 0))
        error = id <= last_id ? EIDRM : EINVAL;
    l->message = (struct message){error, id, memory->size};
    struct cmsghdr *header = (void *)l->control;
    *header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
                               .cmsg_level = SOL_SOCKET,
                               .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &memory->fd, sizeof(int));
    l->envelope.msg_controllen = error ? 0 : CMSG_SPACE(sizeof(int));
    const int sent = sendmsg(out, &l->envelope, MSG_DONTWAIT) != -1;
    if (!error && operation == (sent ? FREE : ALLOCATE)) {
        close(memory->fd);
        *memory = (struct memory){0};
    }
}

/* Of two that start at once, the lock on the directory makes one the second.
   At a dead manager's socket nobody listens. */
static int take_place(void)
{
    struct stat status;
    const int flags = O_DIRECTORY | O_CLOEXEC | (directory ? O_NOFOLLOW : 0);
    if (directory) mkdir(directory, 0700);
    const int place = open(dirname(strdupa(path)), flags);
    if (place == -1 || fstat(place, &status) == -1) err(1, "%s", path);
    if (directory && (status.st_uid != geteuid() || status.st_mode & 077))
        errx(1, "%s: not a directory of ours alone", directory);
    if (flock(place, LOCK_EX) == -1) err(1, "%s", path);
    const int probe = open_socket(), socket = open_socket();
    if (connect(probe, (void *)&address, sizeof address) == 0)
        errx(1, "%s: there is a manager already", path);
    if (errno == ECONNREFUSED && lstat(path, &status) == 0 &&
        S_ISSOCK(status.st_mode) && status.st_uid == geteuid())
        unlink(path);
    umask(077);
    if (bind(socket, (void *)&address, sizeof address) == -1 ||
        close(probe) == -1 || close(place) == -1)
        err(1, "%s", path);
    return socket;
}

static void end(int signum)
{
    unlink(path);
    if (directory) rmdir(directory);
    if (signum != 0) signal(signum, SIG_DFL), raise(signum);
}

/* Never waits for a client. Unread replies would fill the buffer of one socket:
   each has its own, opened early, before a memory takes the last descriptor. */
static void manage(int in)
{
    struct letter letter;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGINT, end);
    signal(SIGTERM, end);
    if (signal(SIGHUP, end) == SIG_IGN) signal(SIGHUP, SIG_IGN);
    if (puts("ready") == EOF || fflush(stdout) == EOF) end(0), err(1, "stdout");
    for (;;) {
        const int out = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (receive(in, &letter, 0)) serve(out, &letter);
        close(out);
    }
}

/* A reply is whole, our user's, with one descriptor if all is well. */
static int ask(number operation, number *id, number *size)
{
    const struct message request = {operation, *id, *size};
    const struct timeval patience = {.tv_sec = 10};
    const int socket = open_socket();
    struct letter l;
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (sendto(socket, &request, sizeof request, 0, (void *)&address,
               sizeof address) == -1)
        err(1, "%s: no manager, start one with `xman manager'", path);
    if (!receive(socket, &l, CMSG_SPACE(sizeof l.fds)) || l.fds[1] != -1 ||
        (l.message.word == 0) != (l.fds[0] != -1))
        errx(1, "%s: no answer, or not a manager's", path);
    close(socket);
    errno = l.message.word;
    if (errno && operation != NEXT) err(1, "%llu", *id ? *id : *size);
    *id = l.message.id;
    *size = l.message.size;
    return l.fds[0];
}

/* The API. A refusal ends the program; a real library would return it. */
static number xman_allocate(number size)
{
    number id = 0;
    close(ask(ALLOCATE, &id, &size));
    return id;
}

static void xman_free(number id)
{
    close(ask(FREE, &id, &(number){0}));
}

/* A size is only believed when the file has it, and cannot lose it. */
static char *xman_get(number id, number *size)
{
    struct stat status;
    const int fd = ask(GET, &id, size), seals = fcntl(fd, F_GET_SEALS);
    if (seals == -1 || (seals & SEALS) != SEALS || fstat(fd, &status) == -1 ||
        (number)status.st_size != *size || (size_t)*size != *size)
        errx(1, "%llu: not the memory that was promised", id);
    const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED;
    char *memory = mmap(NULL, *size, prot, flags, fd, 0);
    if (memory == MAP_FAILED) err(1, "%llu", id);
    close(fd);
    return memory;
}

/* All of stdin is read before the first byte is written. */
static void put(number id)
{
    number size = 0;
    char *memory = xman_get(id, &size), *input = malloc(size + 1);
    const size_t length = input ? fread(input, 1, size + 1, stdin) : 0;
    if (input == NULL || ferror(stdin)) err(1, "stdin");
    if (length > size) errx(1, "stdin: longer than %llu bytes", size);
    memcpy(memory, input, length);
    free(input);
}

/* B frees what A has left, and keeps its mapping. The manager dies with us. */
static int demo(void)
{
    number size = 0;
    int failed = 0;
    if (mkdtemp(directory) == NULL) err(1, "%s", directory);
    sprintf(path, "%s/socket", directory);
    strcpy(address.sun_path, path);
    const int socket = take_place();
    const pid_t manager = fork();
    if (manager == 0 && prctl(PR_SET_PDEATHSIG, SIGTERM) == 0) manage(socket);
    for (number id = 0; id < 2 && !failed; id++) {
        const pid_t client = fork();
        if (client == 0) {
            char *memory = xman_get(id ? id : xman_allocate(4096), &size);
            printf("[client %c %d] gets memory 1 at %p: '%s', ", "AB"[id],
                   getpid(), (void *)memory, memory);
            if (id == 0) printf("stores '%s'\n", strcpy(memory, "hello, B"));
            if (id) xman_free(id), printf("frees it, has '%s'\n", memory);
            return 0;
        }
        if (client == -1 || waitpid(client, &failed, 0) == -1) failed = 1;
    }
    if (manager == -1 || kill(manager, SIGTERM) == -1) failed = 1;
    waitpid(manager, NULL, 0);
    end(0);
    return failed != 0;
}

int main(int argc, char *argv[])
{
    const struct option options[] = {
        {"socket", 1, 0, 's'}, {"limit", 1, 0, 'l'}, {"help", 0, 0, 'h'}, {0}};
    int option;
    limit = (number)sysconf(_SC_PHYS_PAGES) / 2 * sysconf(_SC_PAGESIZE);
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 's': path = optarg; break;
        case 'l': limit = parse(optarg); break;
        case 'h': return usage();
        case '?': return 2;
        }
    argc -= optind, argv += optind;
    const number operand = argc == 2 ? parse(argv[1]) : 0;
    const char *command = argc == 1 || operand ? argv[0] : "";
    const char *place = getenv("XDG_RUNTIME_DIR");
    if (place == NULL || *place == '\0') place = "/tmp";
    const char *form = argc ? "%s/xman-%d" : "%s/xman-%d.XXXXXX";
    number id = 1, size = 0;
    /* With stdout closed, a socket would get its number: printf() sends. */
    for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++)
        if (fcntl(i, F_GETFD) == -1 && open("/dev/null", O_RDWR) != 0)
            errx(1, "stdout or stderr: closed");
    if (argc == 0) puts("A manager and two clients, three processes:");
    flush_stdout();
    if ((argc == 0 || path == NULL) &&
        (asprintf(&directory, form, place, getuid()) == -1 ||
         asprintf(&path, "%s/socket", directory) == -1))
        err(1, "socket");
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (*path == '\0' || strcmp(path, address.sun_path) != 0)
        errx(2, "%s: a socket's path has 1 to 107 bytes", path);
    if (argc == 0) return demo();
    if (!operand && strcmp(command, "manager") == 0) manage(take_place());
    if (!operand && strcmp(command, "list") == 0) {
        for (int fd; (fd = ask(NEXT, &id, &size)) != -1; id++, close(fd))
            printf("%llu %llu\n", id, size);
    } else if (operand && strcmp(command, "allocate") == 0) {
        signal(SIGPIPE, SIG_IGN);
        id = xman_allocate(operand);
        if (printf("%llu\n", id) < 0 || fflush(stdout) == EOF)
            warn("stdout"), xman_free(id), exit(1);
    } else if (operand && strcmp(command, "free") == 0) {
        xman_free(operand);
    } else if (operand && strcmp(command, "put") == 0) {
        put(operand);
    } else if (operand && strcmp(command, "get") == 0) {
        char *memory = xman_get(operand, &size);
        fwrite(memory, 1, size, stdout);
    } else {
        errx(2, "want a command, and SIZE or ID for it; try --help");
    }
    flush_stdout();
}
