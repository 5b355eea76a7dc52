# A module that was built for another nginx is refused in nginx's own words.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;

my ($module) = split ' ', $ENV{TEST_NGINX_LOAD_MODULES};
my $nginx = Nginx->new;

# The signature tells how nginx was configured: sizes, then a digit for each feature.
my $binary = slurp($module);
my $signatures = $binary =~ s/(\b8,4,8,[01]{10,}?)([01])(?=\0)/$1 . (1 - $2)/ge;
is($signatures, 1, 'the module has a signature');

my $other = $nginx->write('other.so', $binary);
$nginx->conf('');
(my $conf = slurp($nginx->root . '/conf/nginx.conf')) =~ s/load_module \S+;/load_module $other;/;
$nginx->write('conf/nginx.conf', $conf);
my $run = $nginx->test;
is($run->{code}, 1, 'another signature is refused');
like($run->{out}, qr{\[emerg\] .*module "\Q$other\E" is not binary compatible in \S+/nginx\.conf:1$}m, 'by nginx');

$nginx->conf('');
is($nginx->test->{code}, 0, 'its own is taken');

done_testing();
