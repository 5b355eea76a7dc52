package Certificates;

# Keys and certificates of the test's own, made by openssl in a directory of its own.
#
#   my $ca = Certificates->new("$root/tls");        # a root: ca.crt, ca.key
#   $ca->issue('server', names => ['a.example']);   # server.crt, server.key, signed by the root
#   $ca->issue('one');                              # a client: its subject is CN=one
#   my $issuer = $ca->intermediate('middle');       # issues too; its certificates have the chain
#   $ca->revoke('server');                          # ca.crl

use strict;
use warnings;

use File::Path qw(make_path);
use Files;

sub new {
    my ($class, $dir, $name) = @_;
    $name //= 'ca';
    make_path($dir);
    my $self = bless { dir => $dir, name => $name, chain => '' }, $class;
    $self->openssl(qw(req -x509 -days 2 -subj), "/CN=$name", new_key($dir, $name), '-out', "$dir/$name.crt",
        '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign');
    return $self;
}

sub new_key {
    my ($dir, $name) = @_;
    return (qw(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout), "$dir/$name.key");
}

sub openssl {
    my ($self, @args) = @_;
    open my $out, '-|', 'sh', '-c', 'exec openssl "$@" 2>&1', 'sh', @args or die "openssl: $!";
    my $said = do { local $/; <$out> } // '';
    close $out or die "openssl @args: $said";
    # Workers of another user read the keys that variables name.
    chmod 0644, grep /\.key$/ && -f, @args;
    return $said;
}

sub write {
    my ($self, $name, $text) = @_;
    spit("$self->{dir}/$name", $text);
    return "$self->{dir}/$name";
}

sub read {
    my ($self, $name) = @_;
    open my $in, '<', "$self->{dir}/$name" or die "$self->{dir}/$name: $!";
    local $/;
    return scalar <$in>;
}

sub sign {
    my ($self, $name, $extensions) = @_;
    my ($dir, $ca) = @$self{qw(dir name)};
    my $file = $self->write("$name.ext", $extensions);
    $self->openssl(qw(req -new -subj), "/CN=$name", new_key($dir, $name), '-out', "$dir/$name.csr");
    $self->openssl(qw(x509 -req -days 2 -CAcreateserial -in), "$dir/$name.csr", '-CA', "$dir/$ca.crt",
        '-CAkey', "$dir/$ca.key", '-extfile', $file, '-out', "$dir/$name.crt");
    $self->write("$name.crt", $self->read("$name.crt") . $self->{chain});
}

sub issue {
    my ($self, $name, %more) = @_;
    my $names = $more{names};
    $self->sign($name, "basicConstraints=CA:FALSE\n"
        . ($names ? 'subjectAltName=' . join(',', map "DNS:$_", @$names) . "\n" : ''));
    return $self;
}

sub intermediate {
    my ($self, $name) = @_;
    $self->sign($name, "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n");
    return bless { %$self, name => $name, chain => $self->read("$name.crt") }, ref $self;
}

# The list of what is revoked: these certificates.
sub revoke {
    my ($self, @names) = @_;
    my ($dir, $ca) = @$self{qw(dir name)};
    $self->write('index.txt', '');
    my $conf = $self->write('ca.conf', <<"EOC");
[ca]
default_ca = own
[own]
database = $dir/index.txt
default_md = sha256
default_crl_days = 2
certificate = $dir/$ca.crt
private_key = $dir/$ca.key
EOC
    $self->openssl('ca', '-config', $conf, '-revoke', "$dir/$_.crt") for @names;
    $self->openssl('ca', '-config', $conf, '-gencrl', '-out', "$dir/$ca.crl");
    return $self;
}

1;
